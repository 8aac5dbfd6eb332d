"""Time and memory of models and engines."""
