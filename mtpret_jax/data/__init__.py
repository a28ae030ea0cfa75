"""From prepared records to batches: NumPy, Grain and TFDS. Worker processes import this, so it never imports JAX.

    sources.py        a prepared dataset as a random-access source of records
    records.py        decodes a record's image and mask
    plain_png.py      reads uncompressed PNG without a decoder
    pipeline.py       sources -> a stream of (task, batch) that can start at any step
    task_schedule.py  which task at which step: visits and rounds
    shuffle_bn.py     the order of the keys in a batch of stage 1
    workers.py        processes that read ahead
"""
