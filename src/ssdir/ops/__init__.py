"""Operations on tensors: boxes, anchors, matching, glimpses, compositing."""
