"""Text in archives: encodings, control characters and Unicode forms."""
import codecs
import pathlib
import re
import unicodedata

from tfds_builders.common.archives import file_size

ENCODINGS = ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF32_LE, 'utf-32'), (codecs.BOM_UTF32_BE, 'utf-32'),
             (codecs.BOM_UTF16_LE, 'utf-16'), (codecs.BOM_UTF16_BE, 'utf-16'))  # UTF-32's mark begins as UTF-16's does
NO_TEXT = ((b'PK\3\4', 'an Excel workbook or ZIP file'), (b'\xd0\xcf\x11\xe0', 'an old Excel workbook'),
           (b'\x1f\x8b', 'a gzip file'), (b'%PDF', 'a PDF file'))
MAX_REASON = 300  # characters
LONG_WORD = 40  # characters, such as those of a path

# Control characters, line ends, and the surrogates by which Python represents undecodable bytes in file names.
GARBLED = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def escape(text: str) -> str:
  """The text on one line, with control characters and undecodable bytes escaped."""
  return GARBLED.sub(lambda match: match[0].encode('unicode_escape').decode(), text)


def shorten(text: str, most: int) -> str:
  """The text if it has at most `most` characters, else the words that fit and '...'. Only a very long word is cut."""
  if len(text) <= most:
    return text
  start, _, rest = text[:most - 3].rpartition(' ')
  return f'{start} ...' if len(rest) < LONG_WORD else f'{text[:most - 3]}...'


def as_reason(error: object) -> str:
  """What an error says, on one line of limited length."""
  return shorten(escape(str(error)), MAX_REASON)


def normalise(text: str) -> str:
  """The text in Unicode's composed form (NFC). macOS decomposes the names of files: 'ö' is then two characters."""
  return unicodedata.normalize('NFC', text)


def read_text(path: pathlib.Path) -> str:
  """A text file in UTF-8, or in the encoding that its byte order mark states; line ends stay as they are.

  Other encodings cannot be told apart for certain.

  Raises:
    ValueError: another encoding or no text; the message says what to type.
    OSError: unreadable.
  """
  file_size(path)  # reading a pipe or device might never end
  raw = path.read_bytes()
  for start, kind in NO_TEXT:
    if raw.startswith(start):
      raise ValueError(f'{path} is not UTF-8 text but {kind}: open it and save it as {path.name} in UTF-8 (in Excel: '
                       'Save As, "CSV UTF-8")')
  encoding = next((encoding for mark, encoding in ENCODINGS if raw.startswith(mark)), 'utf-8')
  save = 'Save it as UTF-8 (in Excel: Save As, "CSV UTF-8"), or type iconv'
  files = f'-t UTF-8 {path.name} > new{path.suffix}'
  if encoding == 'utf-8' and max(raw[:1000][half::2].count(0) for half in (0, 1)) > len(raw[:1000]) / 4:
    raise ValueError(f'{path} is not UTF-8 text but UTF-16 without a byte order mark. {save} -f UTF-16LE {files}, with '
                     f'UTF-16BE if that gives no text')
  try:
    return raw.decode(encoding)
  except UnicodeDecodeError as error:
    line = raw[:error.start].count(b'\n') + 1
    raise ValueError(f'{path} is not {encoding.removesuffix("-sig").upper()} text: {error.reason} at byte '
                     f'{error.start}, line {line}. {save} -f ENCODING {files}, with WINDOWS-1252 as ENCODING for '
                     f'western Windows') from error
