"""Writers of data sets: COCO, YOLO and Pascal VOC."""
