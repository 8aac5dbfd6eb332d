"""Readers of data sets: each layout becomes one `AnnotationTable`."""
