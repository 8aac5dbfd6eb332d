"""What can be done with encoded objects, from their file alone: classify, group, find odd ones."""
