"""Readers of data sets: a module or package per layout returns an `AnnotationTable`."""
