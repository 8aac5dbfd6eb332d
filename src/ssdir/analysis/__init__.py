"""Analyses of encoded objects: search, clusters, classifiers, outliers."""
