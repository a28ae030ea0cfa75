"""Faster R-CNN with a feature pyramid.

    faster_rcnn.py   the head: FPN -> RPN -> RoI head -> detections
    fpn.py           feature pyramid network
    anchors.py       anchor boxes of every level
    roi_align.py     features inside each RoI
    targets.py       training targets of the RPN and the RoI head
    boxes.py         box geometry: IoU, box deltas, non-maximum suppression
"""
