"""The networks, as `flax.nnx` modules: the trunk and the heads on it.

    resnet.py               the trunk: ResNet-18, -34 and -50
    heads.py                linear head, MoCo's projector
    deeplab.py              segmentation head: DeepLab-V3
    detection/              detection head: Faster R-CNN
    norm.py conv.py pool.py layers
    torchvision_weights.py  the trunk from and to torchvision's parameter names

Modules are built for shapes only. The train state holds their parameters and running statistics as plain nested dicts,
and the objectives put the two together inside the compiled step (`nnx.split`, `nnx.merge`).
"""
