"""What can be asked of encoded objects: which are alike, of which class, in which group, and which are odd."""

from ssdir.analysis.search.index import Neighbours, ObjectFilter, ObjectIndex

__all__ = ["Neighbours", "ObjectFilter", "ObjectIndex"]
