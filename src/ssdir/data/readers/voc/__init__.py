"""The Pascal VOC layout."""
