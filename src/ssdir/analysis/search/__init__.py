"""Search among encoded objects: an index of embeddings, its filters, and queries by image."""

from ssdir.analysis.search.index import Neighbours, ObjectFilter, ObjectIndex

__all__ = ["Neighbours", "ObjectFilter", "ObjectIndex"]
