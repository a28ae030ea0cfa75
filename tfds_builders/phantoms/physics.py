"""From tissue thickness to grey values: attenuation, scatter, blur, quantum noise, and the vendor's display."""

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np

from tfds_builders.phantoms.scene import Scene

# Linear attenuation in 1/cm at an effective energy of about 60 keV (a filtered 100 kV beam), after the NIST tables;
# lung is soft tissue at a quarter of its density, metal is between titanium and steel.
ATTENUATION = {'gas': 0.0, 'lung': 0.05, 'fat': 0.18, 'soft': 0.205, 'bone': 0.55, 'metal': 4.0}


@dataclasses.dataclass(frozen=True)
class Vendor:
  """One vendor's detector and display: the domain shift between archives.

  Attributes:
    photons: per pixel in the open beam, for an image of 256 x 256 pixels.
    scatter: ratio of scattered to primary radiation behind the patient.
    blur: sigma in pixels, for an image of 256 x 256 pixels.
    gain: steepness of the display curve.
    gamma: exponent of the display curve.
    detail: strength of edge enhancement.
    reach: sigma of edge enhancement, as a fraction of the image height.
    mark: size of the lead marker as a fraction of the image, 0 for none.
    shutter: probability that collimation is visible.
    rim: grey value outside the collimated field.
    low, high: percentiles of the image that are displayed as black and white.
    variation: how much exposures differ from these values and from each other, 0 to 1; see `variation.py`.
  """

  photons: float = 3e4
  scatter: float = 0.25
  blur: float = 0.6
  gain: float = 1.0
  gamma: float = 1.0
  detail: float = 0.3
  reach: float = 0.03
  mark: float = 0.06
  shutter: float = 0.5
  rim: int = 0
  low: float = 2.0
  high: float = 99.6
  variation: float = 0.0


def integrate(scene: Scene, attenuation: Mapping[str, float] = ATTENUATION) -> np.ndarray:
  """Line integrals of attenuation (1/cm). Lung, gas and bone replace soft tissue; metal adds to it."""
  soft = attenuation['soft']
  lines = soft * scene['soft']
  for tissue in ('lung', 'gas', 'bone'):
    lines += (attenuation[tissue] - soft) * scene[tissue]
  return np.maximum(lines, 0) + attenuation['metal'] * scene['metal']


def expose(lines_HW: np.ndarray, vendor: Vendor, rng: np.random.Generator) -> np.ndarray:
  """Detected photons per pixel behind these line integrals (Beer-Lambert)."""
  rows, columns = lines_HW.shape
  dose = vendor.photons * rng.uniform(0.6, 1.6) * (256 / max(rows, columns)) ** 2
  heel = 1 + rng.uniform(-0.12, 0.12) * np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
  primary = np.exp(-lines_HW) * heel
  small = cv2.resize(np.minimum(primary, 0.5), (max(columns // 8, 4), max(rows // 8, 4)), interpolation=cv2.INTER_AREA)
  haze = cv2.resize(
    cv2.GaussianBlur(small, (0, 0), small.shape[1] / 9), (columns, rows), interpolation=cv2.INTER_LINEAR
  )
  signal = primary + np.float32(vendor.scatter * rng.uniform(0.7, 1.3)) * haze
  signal = cv2.GaussianBlur(signal, (0, 0), max(vendor.blur * max(rows, columns) / 256, 0.3))
  count = np.maximum(signal * np.float32(dose), 1)
  # Normal approximation of Poisson noise: accurate above about 20 photons, and eight times as fast.
  return np.maximum(count + np.sqrt(count) * rng.standard_normal(count.shape, np.float32), 1)


def develop(count_HW: np.ndarray, vendor: Vendor, rng: np.random.Generator) -> np.ndarray:
  """Logarithm, edge enhancement and display curve: (H, W) uint8 from 1 to 255, bone bright."""
  density = -np.log(count_HW)
  if vendor.detail:
    sigma = max(vendor.reach * count_HW.shape[0], 0.8)
    step = max(int(sigma / 2), 1)
    small = cv2.resize(density, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(small, (0, 0), sigma / step)
    density = density + np.float32(vendor.detail) * (density - cv2.resize(smooth, density.shape[::-1]))
  rows, columns = density.shape
  inner = density[rows // 10 : -rows // 10 : 3, columns // 10 : -columns // 10 : 3]
  low, high = np.percentile(inner, [vendor.low, vendor.high])
  low, high = low + rng.uniform(-0.08, 0.08) * (high - low), high + rng.uniform(-0.05, 0.12) * (high - low)
  gain = vendor.gain * rng.uniform(0.9, 1.1)
  curve = np.tanh(gain * np.linspace(-0.5, 0.5, 2048)) / np.tanh(0.5 * gain) / 2 + 0.5
  table = (1 + 254 * curve ** (vendor.gamma * rng.uniform(0.9, 1.1))).astype(np.uint8)
  level = (density - np.float32(low)) * np.float32(2047 / max(high - low, 1e-3))
  return table[np.clip(level, 0, 2047).astype(np.int32)]
