"""Reads command lines from stdin, one JSON list per line, and lets each program parse its flags and stop:
`python -m tests.docs.parse_flags`. Prints the command lines that a program refuses."""

import argparse
import json
import os
import runpy
import sys


class Parsed(Exception):
  pass


PARSE = argparse.ArgumentParser.parse_args
PARSE_INTERMIXED = argparse.ArgumentParser.parse_known_intermixed_args


def parse_and_stop(self, *arguments, **keywords):
  PARSE(self, *arguments, **keywords)
  raise Parsed


def parse_intermixed_and_stop(self, *arguments, **keywords):
  _, unknown = PARSE_INTERMIXED(self, *arguments, **keywords)
  if unknown:
    self.error(f'unknown flags {unknown}')
  raise Parsed


if __name__ == '__main__':
  argparse.ArgumentParser.parse_args = parse_and_stop
  argparse.ArgumentParser.parse_known_intermixed_args = parse_intermixed_and_stop
  os.execv = os.execve = lambda *arguments: None  # some programs start again with other settings
  for line in sys.stdin:
    module, *sys.argv[1:] = json.loads(line)
    try:
      runpy.run_module(module, run_name='__main__', alter_sys=True)
    except Parsed:
      continue
    except SystemExit as error:
      print(module, *sys.argv[1:], f'exit code {error.code}')
