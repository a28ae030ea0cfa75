"""The page of stage 1: what a linear model on the frozen trunk reaches, before and after pretraining."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtpret_jax.report.blocks import Block, Headline, Page, Plots, Table, Words, bar, find_scale
from mtpret_jax.report.pages.about import make_config_blocks, make_facts, uses_phantoms
from mtpret_jax.report.pages.guard import make_sections
from mtpret_jax.report.pages.pictures import make_picture_blocks
from mtpret_jax.report.pages.training import make_training_blocks
from mtpret_jax.report.plots.lines import Line, draw_lines
from mtpret_jax.report.run_files import RESULTS, RunFiles
from mtpret_jax.report.standing import FEW_STEPS, describe_check, describe_few, find_standing
from mtpret_jax.report.words import explain_flat, explain_score, format_change, format_number, say_count

PROBES_FILE = 'probes.jsonl'
PROBES = {'linear': 'linear model', 'knn': 'nearest neighbours'}
FEATURES = {'pixels': 'pixels', 'histogram': 'grey values', 'initial': 'before', 'calibrated': 'before, calibrated',
            'pretrained': 'after'}  # name of features in results.json -> title of a column
CAVEAT = ('The 95 % intervals are over validation patients. They do not cover how much another run of stage 1 or '
          'another draw of the labelled images would differ.')


def make_page(run: RunFiles) -> Page:
  results = run.read_json(RESULTS)
  if not results:
    run.problems.append(f'{RESULTS} is not there yet: the run has not finished, so its scores are missing.')
  sections = make_sections(
    run, ('What pretraining brought', lambda run: make_share_blocks(results, run.config)),
    ('What was run', lambda run: [make_facts(run, *list_more_facts(run))]),
    ('Probes', lambda run: make_probe_blocks(results)),
    ('Pictures', make_picture_blocks), ('While training', make_during_blocks), ('Training', make_training_blocks),
    ('Config', make_config_blocks))
  datasets = (run.config.get('data') or {}).get('datasets') or ()
  return Page(f'Pretraining on {say_count(len(datasets), "dataset")}',
              f'Stage 1, without labels{"" if results else ", not finished"}: {run.folder}', sections, run.problems,
              uses_phantoms(run.config))


def list_more_facts(run: RunFiles) -> Iterator[tuple[str, str]]:
  if run.config:
    yield 'Steps', f'{run.config["steps"]:,} with a batch of {run.config["batch"]:,}'
    yield 'Negatives', f'{run.config["moco"]["negatives"]}'


def make_share_blocks(results: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Block]:
  """How far a share of the labels gets."""
  rows = results.get('label_shares') or []
  if not rows:
    return
  probes = results.get('probe') or []
  check = describe_check(probes, config.get('steps', FEW_STEPS))
  if check:
    yield Words([check], tone='warning')
  found = find_standing(rows)
  yield Headline(found.title, found.value, '', found.meaning)
  notes = [note for note in (results.get('decline'), describe_few(probes)) if note]
  if notes:
    yield Words(notes, tone='note')
  yield Words(list(map(describe_fewest, rows)))
  yield Words(['A linear model is fitted on the features of the frozen trunk, with a share of the labelled training '
               'images, and scored on the validation split. "Before" is the trunk that this run started from. '
               f'AUROC: {explain_score("AUROC")}. MAE: {explain_score("MAE")}.'], tone='muted')
  yield Plots([draw_shares(row) for row in rows])
  table = []
  scale = find_scale([end for row in rows for share in row['shares'] for end in share['change'][1] or ()
                      if row['metric'] == 'AUROC'] + [0.0])
  for row in rows:
    for share in row['shares']:
      value, interval = share['change']
      drawn = bar(value, interval, scale, 0.0) if row['metric'] == 'AUROC' else ''
      table.append((row['dataset'], row['metric'], f'{round(share["images"]):,} ({describe_share(row, share)})',
                    *(format_number(share[title][0]) for title in ('initial', 'pretrained')), format_change(value),
                    format_signed(interval), drawn))
  yield Table(('dataset', 'score', 'labelled images', 'before', 'after', 'difference', '95 % interval',
               f'{format_change(scale[0])} to {format_change(scale[1])}'), table,
              ' '.join([CAVEAT, *explain_flat(rows)]), text_columns=(0, 1, 7))


def describe_fewest(row: Mapping[str, Any]) -> str:
  """What the fewest labels give on one dataset."""
  share = min(row['shares'], key=lambda share: share['images'])
  change, interval = share['change']
  ends = f', 95 % interval {format_signed(interval)}' if interval else ''
  lower = '' if row['metric'] == 'AUROC' else '; lower is better'
  return (f'{row["dataset"]}: with {describe_share(row, share)} of the labels ({round(share["images"]):,} images), '
          f'{row["metric"]} {format_number(share["pretrained"][0])} after pretraining and '
          f'{format_number(share["initial"][0])} before (difference {format_change(change)}{ends}{lower}).')


def describe_share(row: Mapping[str, Any], share: Mapping[str, Any]) -> str:
  """The actual share of the labelled images, which may exceed the configured one."""
  return f'{100 * share["images"] / row["labelled"]:.2g} %' if share['images'] < row['labelled'] else '100 %'


def format_signed(interval: Sequence[float] | None) -> str:
  return '' if interval is None else ' to '.join(map(format_change, interval))


def draw_shares(row: Mapping[str, Any]) -> Any:
  """The score against the number of labelled images, before and after pretraining."""
  images = [share['images'] for share in row['shares']]
  places = sorted(set(images))
  lines = {}
  for title, name in (('initial', 'before'), ('pretrained', 'after')):
    values = [share[title][0] for share in row['shares']]
    ends = [share[title][1] or (value, value) for share, value in zip(row['shares'], values, strict=True)]
    lines[name] = Line(images, values, *map(list, zip(*ends, strict=True)))
  better = 'higher' if row['metric'] == 'AUROC' else 'lower'
  return draw_lines(lines, row['dataset'], 'labelled training images', row['metric'], log='x', markers=True,
                    caption=f'{better.capitalize()} is better. The bands are 95 % intervals.',
                    ticks=dict(zip(places, label_ticks(places), strict=True)), numbers={'before': 7, 'after': 0})


def label_ticks(counts: Sequence[float]) -> list[str]:
  """Labels of a logarithmic axis, without those that would run into the one before."""
  labels, before = list[str](), 0.0
  for count in counts:
    fits = count > 1.3 * before
    labels.append(f'{round(count):,}' if fits else '')
    before = count if fits else before
  return labels


def make_probe_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
  """The probes at the end, on the trunk and on baselines."""
  rows = results.get('probe') or []
  if not rows:
    return
  titles = [title for title in FEATURES if any(title in row[probe] for row in rows for probe in PROBES)]
  table = []
  for row in rows:
    for probe, name in PROBES.items():
      change, interval = row[probe]['change']
      table.append((row['dataset'], name, row['metric'],
                    *(format_number(row[probe][title][0]) if title in row[probe] else '-' for title in titles),
                    format_change(change), format_signed(interval), f'{row["validation"]:,}'))
  yield Table(('dataset', 'probe', 'score', *(FEATURES[title] for title in titles), 'after − before', '95 % interval',
               'validation images'), table,
              'Fitted on the training split, scored on the validation split. Pixels and grey values are baselines '
              'without a trunk; calibrated: the same weights with batch-norm statistics of training images.',
              text_columns=(0, 1, 2))


def make_during_blocks(run: RunFiles) -> Iterator[Block]:
  """The probes of `probes.jsonl`, a plot for each dataset."""
  lines = run.read_lines(PROBES_FILE)
  names = list(dict.fromkeys(name for line in lines for name in line['scores']))
  plots = []
  for name in names:
    own = [(line['step'], line['scores'][name]) for line in lines if name in line['scores']]
    curves = {title: Line([step for step, _ in own], [scores.get(probe) for _, scores in own])
              for probe, title in PROBES.items()}
    plots.append(draw_lines(curves, name, 'step', own[0][1]['metric'], markers=True))
  if plots:
    yield Plots(plots)
    probe = run.config.get('probe') or {}
    images = (f', on at most {probe["during"]:,} images of each split (at the end: {probe["images"]:,})'
              if 'during' in probe and 'images' in probe else '')
    yield Words([f'Probes of the trunk while it trained{images}. Step 0 is the trunk that the run started from.'],
                tone='muted')
