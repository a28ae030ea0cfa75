"""The networks, as `flax.nnx` modules: the trunk and the heads on it.

    trunk.py                the trunks by name: resnet.py (ResNet-18, -34 and -50), densenet.py (DenseNet-121)
    heads.py                linear head, MoCo's projector
    deeplab.py              segmentation head: DeepLab-V3
    detection/              detection head: Faster R-CNN
    norm.py conv.py pool.py layers: batch norm, convolution, pooling
    torchvision_names.py    torchvision's name and layout of every array, of trunk and heads
    torchvision_weights.py  imports and exports the trunk with torchvision's parameter names

A module is built only for its initial weights and the shapes of its parameters. The train state holds parameters and
running statistics as plain nested dicts, and the objectives put modules and dicts together inside the compiled step
(`nnx.split`, `nnx.merge`).

The name of an array ends in its axes, a letter for each: `images_BHWC` has images, rows, columns and channels. A digit
is an axis of that length: `boxes_N4`. Each file lists its letters in its docstring; the same letter may differ between
files. A lower-case letter is the same axis at another size: `h w` are the rows and columns of a view, a map or a
kernel where `H W` are those of the image.
"""
