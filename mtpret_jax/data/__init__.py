"""From prepared records to batches: NumPy, Grain and TFDS. Worker processes import this, so it never imports JAX.

    sources.py           a prepared dataset as a random-access source of records
    labelled_records.py  labels from index.csv in place of a record
    records.py           decodes a record's image and mask
    plain_png.py         reads uncompressed PNG without a decoder
    sampling.py          the order in which records are drawn
    pipeline.py          sources -> a stream of (task, batch) that can start at any step
    task_schedule.py     which task at which step: visits and rounds
    shuffle_bn.py        the order of the keys in a batch of stage 1
    workers.py           processes that read ahead
    fingerprint.py       everything that the result of a run depends on
"""
