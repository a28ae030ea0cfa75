"""Reads TensorBoard's event files."""

import os
import struct

from tensorboardX.proto.event_pb2 import Event


def read_events(path: str | os.PathLike) -> list[Event]:
  """The events of a file: records of length, checksum, bytes, checksum."""
  events, content, place = [], memoryview(open(path, 'rb').read()), 0
  while place < len(content):
    length, = struct.unpack('<Q', content[place:place + 8])
    events.append(Event.FromString(bytes(content[place + 12:place + 12 + length])))
    place += length + 16
  return events


def read_tags(path: str | os.PathLike) -> set[str]:
  return {value.tag for event in read_events(path) for value in event.summary.value}
