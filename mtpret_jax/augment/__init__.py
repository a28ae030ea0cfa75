"""Augmentation on the device, inside the compiled step: random views, seeded by the step.

    views.py     two views of an image for contrastive learning (MoCo v2)
    labelled.py  one view of image, mask and boxes together (stages 2 and 3)
"""
