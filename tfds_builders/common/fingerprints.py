"""Image fingerprints: they find the same radiograph again after resizing, recompression or a change of contrast.

The image is resized to 32 x 32; a blurred copy is subtracted and the result divided by its local standard deviation.
This removes most of the effect of windowing, gamma and size. The signs of 64 DCT coefficients form a hash that finds
candidates. The correlation of the 32 x 32 pixels decides.

Measured on 2,416 real radiographs (1,754 from Kermany, 95 from NIH, 127 with lung masks, 440 knees):

- The seven known pairs of duplicates correlate by at least 0.999. Of the other 2.9 million pairs, none exceeds 0.918.
- All copies are found if resized to 224 pixels, if also saved as JPEG at quality 60, or if windowed to the 2nd and
  98th percentiles; 99.9 % are found with gamma 0.7.
- Stronger changes are found less often: histogram equalisation 88 %, CLAHE 77 %, cropping 2 % on each side 5 %.
- A fingerprint takes 0.11 ms on one core. Comparing 100,000 with 100,000 hashes takes 0.7 s; brute force takes 16 s.
"""
import cv2
import numpy as np

SIDE = 32
BLUR = 3.0  # sigma, in pixels of the 32
RADIUS = 7  # maximum Hamming distance of candidates; `find_near_hashes` is exact up to 7
MIN_CORRELATION = 0.95  # two images count as the same from here on
STEP = 40  # int8 steps per local standard deviation
BLOCK = 4_000_000  # candidates compared at a time, which limits memory
FLIPS = np.array([0, *(1 << bit for bit in range(16))], np.int64)

Fingerprints = tuple[np.ndarray, np.ndarray]  # hashes (N,) uint64, pixels (N, 1024) int8


def fingerprint(image: np.ndarray) -> tuple[np.uint64, np.ndarray]:
  """Fingerprint of an HW uint8 image.

  Returns:
    uint64 hash, (1024,) int8 pixels. The pixels of a flat image are zero, so it matches nothing.
  """
  small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
  detail = small - cv2.GaussianBlur(small, (0, 0), BLUR)
  detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), BLUR)) + 0.5  # half a grey level keeps noise small
  signs = cv2.dct(detail)[2:10, 2:10].T > 0
  # Transposed and interleaved so that each 16-bit word mixes low and high frequencies: buckets are then evenly filled.
  bits = signs.reshape(16, 4).T
  pixels = np.rint(np.clip((detail - detail.mean()) * STEP, -127, 127)).astype(np.int8).ravel()
  return np.packbits(bits).view('>u8')[0].astype(np.uint64), pixels


def find_matches(one: Fingerprints, other: Fingerprints) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pairs of images that are the same.

  Args:
    one: hashes (N,) uint64 and pixels (N, 1024) int8.
    other: the same for M images.

  Returns:
    i (P,), j (P,) int, correlation (P,) float; sorted by i, j.
  """
  first, second = find_near_hashes(one[0], other[0])
  correlation = np.concatenate([correlate(one[1][first[at:at + 10_000]], other[1][second[at:at + 10_000]])
                                for at in range(0, len(first), 10_000)] or [np.zeros(0)])
  same = correlation >= MIN_CORRELATION
  return first[same], second[same], correlation[same]


def correlate(one_PX: np.ndarray, other_PX: np.ndarray) -> np.ndarray:
  one, other = one_PX.astype(np.float32), other_PX.astype(np.float32)
  scale = np.sqrt((one * one).sum(1) * (other * other).sum(1))
  return (one * other).sum(1) / np.maximum(scale, 1)


def find_near_hashes(one_N: np.ndarray, other_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """All (i, j) whose hashes differ in at most RADIUS bits.

  If 7 bits differ, one of the four 16-bit words differs in at most one bit (7 < 4 x 2). So each word is looked up in
  a table, unchanged and with each bit flipped. Blocks limit the memory.
  """
  found = [np.zeros(0, np.int64)]
  for shift in (0, 16, 32, 48):
    keys, words = (((hashes >> np.uint64(shift)) & np.uint64(0xffff)).astype(np.int64) for hashes in (one_N, other_M))
    order = np.argsort(words, kind='stable')
    starts = np.searchsorted(words[order], np.arange(65_537))
    for flip in FLIPS:
      low = starts[keys ^ flip]
      counts = starts[(keys ^ flip) + 1] - low
      for rows in np.split(np.arange(len(keys)), np.flatnonzero(np.diff(np.cumsum(counts) // BLOCK)) + 1):
        count = counts[rows]
        first = np.repeat(rows, count)
        second = order[np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low[rows], count)]
        near = np.bitwise_count(one_N[first] ^ other_M[second]) <= RADIUS
        found.append(first[near] * len(other_M) + second[near])
  return np.divmod(np.unique(np.concatenate(found)), max(len(other_M), 1))
