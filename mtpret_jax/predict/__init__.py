"""Predictions for new images by a trained model: `load.load` from Python, `python -m mtpret_jax.predict` as a command.

    reading      an image file, array or DICOM data set -> the pixels that a builder would store
    model        a run or a weights file -> a model that predicts and embeds; several as an ensemble
    batches      readings -> batches -> a prediction for each reading
"""
