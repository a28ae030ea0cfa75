"""MTPret in JAX: multitask pretraining for X-ray images (Liao et al., IEEE TAI 2024).

    main, cli, stages      the command line; config -> everything the loop needs
    train, step            the loop; the train state, the optimiser and the compiled step
    objectives/            the method: MD-MoCo (stage 1); multitask learning with cross-task memory (stages 2 and 3)
    models/                ResNet trunk, DeepLab-V3 and Faster R-CNN heads, batch norm over groups
    tasks/                 one file per kind of task: label, head, loss, prediction, scores
    augment/ data/         random views on the device; prepared records -> batches, task schedule, ShuffleBN
    evaluation/ report/    linear probe, validation, test scores; printed tables and pictures
    config/ runtime/       checks of a config; checkpoints, preemption, sharding, logging
    cpu/ preflight/        what only CPUs need; a compile-only check of a run on TPUs or GPUs that are not attached

The end of an array's name lists its axes: `images_BHW1` has the axes batch, height, width and one channel. The
docstring of a module lists its letters.
"""

__version__ = '0.1.0'
