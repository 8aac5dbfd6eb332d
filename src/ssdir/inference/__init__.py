"""Models applied to images of any kind, and to files of them."""
