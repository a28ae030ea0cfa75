"""How every command ends: the one place where an error becomes a line on stderr and an exit code.

The commands of `tfds_builders` are decorated with `command`. `mtpret_jax.cli` and the preflight call `explain`, because
they have to stop several processes together. An error that `explain` does not know is a bug and keeps its traceback.
"""

import errno
import functools
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from tfds_builders.common.plain_text import escape

# Exit codes. REFUSED: the command or its input must change. FAILED: something went wrong that may be different next
# time, such as a full disk. INTERRUPTED and CLOSED_PIPE are 128 plus the signal, as shells count.
FAILED, REFUSED, INTERRUPTED, CLOSED_PIPE = 1, 2, 128 + signal.SIGINT, 128 + signal.SIGPIPE

NO_SPACE = 'free some space, or choose a folder on another disk, and run the same command again'
NO_RIGHT = 'change its permissions, or choose another folder'
UNSTABLE = 'check the disk or the network, and run the same command again'
# Error number of the system -> (exit code, what to do). Other errors of the system name a file that the user gave.
SYSTEM_ERRORS = {
  errno.ENOSPC: (FAILED, NO_SPACE), errno.EDQUOT: (FAILED, NO_SPACE),
  errno.EFBIG: (FAILED, 'raise the limit (ulimit -f), or choose a file system that allows larger files'),
  errno.EACCES: (REFUSED, NO_RIGHT), errno.EPERM: (REFUSED, NO_RIGHT), errno.EROFS: (REFUSED, NO_RIGHT),
  errno.EIO: (FAILED, UNSTABLE), errno.ESTALE: (FAILED, UNSTABLE), errno.ETIMEDOUT: (FAILED, UNSTABLE),
  **dict.fromkeys((errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ECONNRESET, errno.EBUSY, errno.EAGAIN),
                  (FAILED, UNSTABLE)),
  errno.EMFILE: (FAILED, 'raise the limit of open files (ulimit -n)'),
  errno.ENFILE: (FAILED, 'raise the limit of open files (ulimit -n)'),
  errno.ENOMEM: (FAILED, 'free some memory, or use a machine with more'),
  errno.ENAMETOOLONG: (REFUSED, 'choose a shorter path')}


def explain(error: BaseException, mistakes: tuple[type[BaseException], ...] = (ValueError, ModuleNotFoundError),
            failures: tuple[type[BaseException], ...] = ()) -> tuple[int, str] | None:
  """(exit code, line) of an error that a user can do something about; None for a bug.

  Args:
    mistakes: errors that mean that the command or its input must change. Commands that read the user's files take
      every ValueError for one; the training command lists the types, because its own ValueErrors are bugs.
    failures: other errors whose message is written for the user.
  """
  if isinstance(error, KeyboardInterrupt):
    return INTERRUPTED, 'stopped by SIGINT; run the same command to start again'
  if isinstance(error, failures):
    return FAILED, str(error)
  if isinstance(error, UnicodeEncodeError):  # of a path: printed text is escaped, see `open_streams`
    return REFUSED, escape(f'the locale cannot express the path {error.object!r:.200}: set PYTHONUTF8=1')
  if isinstance(error, OSError) and error.errno is not None:
    return explain_system_error(error)
  if isinstance(error, (OSError, RuntimeError)) and (number := find_system_error(str(error))):
    code, remedy = SYSTEM_ERRORS[number]
    return code, escape(f'{error}: {remedy}')
  if isinstance(error, (*mistakes, OSError)):
    return REFUSED, '\n'.join(map(escape, str(error).splitlines())) or type(error).__name__
  if isinstance(error, MemoryError):
    return FAILED, escape(f'out of memory ({error or "no details"}): free some, or use a machine with more')
  if isinstance(error, RuntimeError) and 'determine home directory' in str(error):  # pathlib's
    return REFUSED, 'a path begins with ~, but there is no home folder (HOME is not set): give the full path'
  return None


def explain_system_error(error: OSError) -> tuple[int, str]:
  """As `explain`, for an error that the operating system numbers."""
  code, remedy = SYSTEM_ERRORS.get(error.errno or 0, (REFUSED, ''))
  paths = ' and '.join(os.fsdecode(path) for path in (error.filename, error.filename2)
                       if isinstance(path, (str, bytes, os.PathLike)))
  reason = error.strerror or os.strerror(error.errno or 0)
  return code, escape(': '.join(part for part in (paths, reason, remedy) if part))


def find_system_error(text: str) -> int | None:
  """The error of the system in a message: libraries in C++, such as array_record, raise RuntimeError for it."""
  return next((number for number in SYSTEM_ERRORS if os.strerror(number) in text), None)


def open_streams() -> None:
  """Lets stdout and stderr escape what their encoding lacks, such as an umlaut on an ASCII terminal. A stream that the
  caller closed becomes the null device: the next file to be opened would otherwise get its number."""
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    stream = getattr(sys, name)
    if stream is None:
      os.dup2(os.open(os.devnull, os.O_RDWR), number)
      setattr(sys, name, open(number, 'w' if number else 'r', closefd=False))
    elif number and hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='backslashreplace')


def command(main: Callable[..., int]) -> Callable[..., int]:
  """Makes a function of the command line's arguments into a command: its errors become a line and an exit code."""
  @functools.wraps(main)
  def run(arguments: Sequence[str] | None = None) -> int:
    open_streams()
    if signal.getsignal(signal.SIGINT) is stop_at_once:
      signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
      code = run_and_report(main, arguments)
      sys.stdout.flush()  # a reader that has gone, such as `head`, is noticed here and not when Python ends
      return code
    except BrokenPipeError:
      discard_output()
      return CLOSED_PIPE
  return run


def leave(code: int) -> NoReturn:
  """Ends a program with the code of its command. After Ctrl-C at once: the compiler's threads still run, and a normal
  shutdown frees memory that they use, and crashes."""
  if code == INTERRUPTED:
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def run_and_report(main: Callable[..., int], arguments: Sequence[str] | None) -> int:
  """The exit code of `main`, or of its error, whose line is printed. Raises bugs, and BrokenPipeError."""
  try:
    return main(arguments)
  except BrokenPipeError:
    raise
  except (Exception, KeyboardInterrupt) as error:
    return report(error)


def report(error: BaseException) -> int:
  """Prints the line of an error and returns its exit code. Raises the error if it is a bug."""
  ending = explain(error)
  if ending is None:
    raise error
  code, line = ending
  print(line, file=sys.stderr)
  return code


def is_output_closed() -> bool:
  """Whether the reader of stdout or stderr has gone. A pipe to another process may break as well."""
  poller = select.poll()
  for number in (1, 2):
    poller.register(number, 0)  # errors are always reported
  return any(event & select.POLLERR for _, event in poller.poll(0))


def discard_output() -> None:
  """Python flushes its streams when it ends, and would print an error if their reader has gone."""
  for stream in (sys.stdout, sys.stderr):
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stop_on_interrupt() -> None:
  """Lets Ctrl-C end the program in one line while it imports its libraries, which takes seconds. Until `command`."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have set it to be ignored
    signal.signal(signal.SIGINT, stop_at_once)


def stop_at_once(number: int, frame: FrameType | None, program: str = '', remedy: str = 'start again',
                 code: int | None = None) -> None:
  """A signal handler that ends the program while there is nothing to save, by default with 128 plus the signal.

  It raises no exception, because an import may swallow one. It does not print, because `print` raises RuntimeError if
  the signal interrupts another write to sys.stderr.
  """
  os.write(2, f'{program}stopped by {signal.Signals(number).name}; run the same command to {remedy}\n'.encode())
  os._exit(128 + number if code is None else code)
