"""Exports a trained model for other programs: `python -m mtpret_jax.export RUN --to torchvision|safetensors|stablehlo`.

    trained          a run or an exported folder, read
    torchvision      weights under torchvision's names, what is needed to build the network there
    load_in_torch    a script that is copied beside them; it needs PyTorch and nothing of this package
    own_weights      weights under our own names, which `mtpret_jax.load` reads
    stablehlo        a program of `jax.export` from image to prediction
    card             README.md: what the model is, its data and licences, its scores, how to load it
    folder           writes all files of an export, or none
"""
