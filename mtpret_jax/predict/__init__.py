"""Predictions for new images by a trained model: `load.load` from Python, `python -m mtpret_jax.predict` as a command.

    reading      an image file, array or DICOM data set -> the pixels that a builder would store
    load         a run, an export or a weights file -> a model; several runs -> an ensemble
    model        what predicts and embeds
    batches      readings -> batches -> a prediction for each reading
"""
