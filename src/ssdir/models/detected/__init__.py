"""Models that embed the objects that a frozen detector detects."""
