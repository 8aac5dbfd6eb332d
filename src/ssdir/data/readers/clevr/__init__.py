"""CLEVR scenes, with boxes computed from the scene's camera."""
