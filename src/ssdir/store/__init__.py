"""Files of encoded objects and of boxes: Parquet, CSV and COCO results."""
