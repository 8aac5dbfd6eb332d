"""Models applied to anything that is a picture, and the stores that keep the results."""
