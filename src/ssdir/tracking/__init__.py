"""Tracks of objects through clips: videos, folders of frames, sequences."""
