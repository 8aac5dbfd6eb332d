"""Metrics: numbers by name, from a model and a data set."""
