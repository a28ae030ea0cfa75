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
PARSE_KNOWN = argparse.ArgumentParser.parse_known_args  # of programs that hand other flags on; `PARSE` uses it too


def parse_and_stop(self, *arguments, **keywords):
  argparse.ArgumentParser.parse_known_args = PARSE_KNOWN
  try:
    PARSE(self, *arguments, **keywords)
  finally:
    argparse.ArgumentParser.parse_known_args = parse_known_and_stop
  raise Parsed


def parse_known_and_stop(self, *arguments, **keywords):
  _, others = PARSE_KNOWN(self, *arguments, **keywords)
  if unknown := [flag for flag in others if not flag.startswith('--config.')]:
    self.error(f'unknown flags {unknown}')
  raise Parsed


def parse_intermixed_and_stop(self, *arguments, **keywords):
  argparse.ArgumentParser.parse_known_args = PARSE_KNOWN
  try:
    _, unknown = PARSE_INTERMIXED(self, *arguments, **keywords)
  finally:
    argparse.ArgumentParser.parse_known_args = parse_known_and_stop
  if unknown:
    self.error(f'unknown flags {unknown}')
  raise Parsed


if __name__ == '__main__':
  argparse.ArgumentParser.parse_args = parse_and_stop
  argparse.ArgumentParser.parse_known_args = parse_known_and_stop
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
