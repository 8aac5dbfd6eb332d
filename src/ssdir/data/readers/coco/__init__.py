"""The COCO layout."""
