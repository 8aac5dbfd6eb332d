"""Tensors in, tensors out: boxes, anchors, matching, glimpses, compositing."""
