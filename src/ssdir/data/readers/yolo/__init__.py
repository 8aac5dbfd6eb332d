"""YOLO data sets, Ultralytics' and Darknet's."""
