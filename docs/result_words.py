"""The words around the tables that `python -m docs.make_results` writes, and MUSCLE's printed row."""

INTRO = '''## The papers' table

Each initialisation is fine-tuned on each task, with shares of its labels and with several seeds
(`configs/table.py`). *Labels* is the share of the labelled training patients (`data.fraction`). Scores are on the test
split: mean ± standard deviation over the seeds, the best of each column in bold. *Mean rank* is the mean over the tasks
of the rank of an initialisation; 1 is the best, and only initialisations with every task of the column are ranked.

A difference to scratch is pooled over the seeds. Its 95 % interval comes from a paired bootstrap: each resample draws
patients and seeds, the same ones for both, and the interval is widened for few seeds
([how](scores.md#differences-between-initialisations)). Positive is better, also for errors. A star marks intervals that
exclude 0. Where nothing differs, about one interval in twenty excludes 0 by chance.'''

FORGETTING_TITLE = ('What stage 2 forgot or gained: the last validation score of each task against its best earlier '
                    'one, mean over the seeds:')

TABLES = {
  'real_small': ('Small real radiographs',
                 'Real radiographs as small images. A pretrained trunk learns at a tenth of the head\'s rate. `germ` '
                 'tells bacteria from viruses among the cases of pneumonia. `covid_other` tells COVID from other '
                 'findings; it and `lung_boxes` are external: no stage before saw their images. The test split has '
                 '500 images for pneumonia, 367 for germ and 808 knees, but 25 for each external task, 13 for lung '
                 'and 4 for teeth. The seeds choose labelled patients, weights and augmentation; all share one run '
                 'of stage 1. The folder `archives` has `kermany_pneumonia`, `knee_oa`, `lung_masks`, and two '
                 'datasets in the layout of your own: `teeth` with `boxes.json`, and `covid_chest` with a column '
                 '`covid` and `boxes.json`.'),
  'real_small_task_rates': ('Small real radiographs, rate of the trunk by task',
                            'As above, but for knees and lungs a pretrained trunk learns at the head\'s rate, as '
                            'random weights do. This was chosen on the validation split with other seeds '
                            '([experiment](experiments.md#stage-1-from-few-images)). No setting was chosen with the '
                            'seeds here. The boxes of lungs (6 to 17 images) keep a tenth of the rate. They and lungs '
                            'with 5 and 10 % of the labels (6 and 11 images) start from another run of stage 1 than '
                            'the other cells, with the same settings and seed.'),
  'real_small_ten_seeds': ('Small real radiographs, ten seeds with 1 % of the labels',
                           'Ten other seeds, with the smallest share of the labels: 36 to 58 images for pneumonia, '
                           '25 to 43 for germ, 82 knees. Their number was fixed before the first run. Stage 1 is '
                           'another run with the same settings and seed. A pretrained trunk learns at a tenth of the '
                           'head\'s rate, for knees at the full rate. `moco` has the same stage 1, with as many steps, '
                           'on the 4,100 chest radiographs alone; knees were not run.'),
  'real_small_paper': ('Small real radiographs, MUSCLE\'s split rule', 'The split rule is `paper`, which is inferred '
                       'from MUSCLE\'s printed numbers: images of one patient may be in training and test.'),
  'phantoms': ('Phantoms', 'Simulated radiographs whose exposures vary between datasets. They are not patients, and '
               'their scores say nothing about clinical use. A pretrained trunk learns at a tenth of the head\'s rate. '
               'Stage 2 also learns masks of lungs. After its last round, `mtpret` is behind its best earlier '
               'validation score by 0.01 AUC for pneumonia and by 0.2 months for bone age.'),
  'phantoms_task_rates': ('Phantoms, rate of the trunk by task', 'Other phantoms and other seeds. The trunk learns at '
                         'a tenth of the head\'s rate for pneumonia, and at the full rate for the other tasks. For '
                         'bone age and knees this was chosen with 100 in place of every seed '
                         '([experiment](experiments.md#rate-of-the-trunk-on-phantoms)); for lungs it was not tried on '
                         'phantoms.'),
}

# MUSCLE's documentation in PaddleSeg: pneumonia, ResNet-18, AUC in % with its 95 % interval.
MUSCLE = {'scratch': ('Scratch', '96.58 (95.09 to 97.81)'), 'imagenet': ('ImageNet', '96.05 (94.24 to 97.33)'),
          'md_moco': ('MD-MoCo', '98.48 (97.14 to 99.30)'), 'muscle--': ('MUSCLE--', '99.51 (99.16 to 99.77)'),
          'mtpret': ('MUSCLE', '99.61 (99.32 to 99.83)')}
MUSCLE_TASK = 'pneumonia'

MUSCLE_INTRO = '''### Pneumonia beside MUSCLE

AUC in %, ResNet-18, all labels. MUSCLE's column is printed in its documentation, one run with its interval. Ours is
from the table *{title}*: mean ± standard deviation over seeds.'''
MUSCLE_DIFFERS = '''The columns cannot be compared digit by digit. MUSCLE pretrains on 169,257 images of nine datasets.
Here the images are small, stage 1 has far fewer of them, and the runs are short.
{split}'''
# How each table splits the images. The first table that is there stands beside MUSCLE's row.
SPLITS = {
  'real_small_paper': 'The split follows the rule that we infer from MUSCLE\'s printed counts (585 test images; 511 '
                      'here).\nImages of one patient are in training and test, so these scores are optimistic in both '
                      'columns.',
  'real_small': 'MUSCLE\'s split (585 test images) is not published. Here no patient is in both training and test.',
}
