"""Generates images of glyphs at many sizes (paper §4.3)."""
