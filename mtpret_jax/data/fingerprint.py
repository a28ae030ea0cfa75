"""The fingerprint of a run: everything that its result depends on, so that it resumes with nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.data.sources import Source

# Config fields that do not change what is learned. A run may resume with other values of these. The name of a group of
# fields, such as 'probe', stands for all its fields.
INCIDENTAL = ('name', 'workdir', 'sharding', 'save_every', 'log_every', 'keep', 'keep_finished', 'probe',
              'validations', 'patience', 'operating_point', 'temperature', 'flips', 'resamples', 'extend',
              'data.archives', 'data.dir', 'data.phantoms', 'data.threads', 'data.workers', 'data.prefetch',
              'on_nonfinite', 'max_skips', 'save_retries')


def make_fingerprint(sources: Sequence[Source], config: ConfigDict) -> dict[str, Any]:
  """Everything that determines the state after each step, as a flat dict: the datasets, and all config fields except
  INCIDENTAL. A run resumes only if its fingerprint is unchanged."""
  # The archive's checksum differs for another download, the number of images for another choice at preparation.
  datasets = {f'data.{source.name}': f'{source.version} {source.split} by {source.split_rule} {len(source)} images '
                                     f'{source.about.get("archive", {}).get("sha256", "")[:12]}'.strip()
              for source in sources}
  return datasets | {field: value for field, value in flatten(config.to_dict()).items()
                     if not is_incidental(field)}


def is_incidental(field: str) -> bool:
  """Whether a field of `flatten` is in INCIDENTAL, by itself or as a field of a group."""
  return any(field == name or field.startswith(f'{name}.') for name in INCIDENTAL)


def flatten(fields: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested fields as {'outer.inner': value}, with lists in place of tuples. The key 'tasks' holds the list of task
  names, because the visits depend on their order."""
  flat: dict[str, Any] = {}
  for name, value in fields.items():
    if isinstance(value, Mapping):
      if name == 'tasks':
        flat[f'{prefix}tasks'] = list(value)
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = to_lists(value)
  return flat


def to_lists(value: Any) -> Any:
  """Tuples as lists, also nested ones, so that the value equals what JSON gives back."""
  return [to_lists(one) for one in value] if isinstance(value, tuple | list) else value
