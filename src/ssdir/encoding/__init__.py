"""Encoding of many image files into stored objects, in parts, by one process or by many."""
