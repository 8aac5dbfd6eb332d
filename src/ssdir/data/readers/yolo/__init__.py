"""The YOLO layouts of Ultralytics and Darknet."""
