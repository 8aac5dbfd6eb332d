"""Search among encoded objects: an index of embeddings, its filters, and queries by image."""

from ssdir.analysis.search.filters import ObjectFilter
from ssdir.analysis.search.index import Neighbours, ObjectIndex

__all__ = ["Neighbours", "ObjectFilter", "ObjectIndex"]
