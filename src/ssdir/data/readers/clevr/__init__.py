"""The CLEVR layout, with boxes computed from the scene's camera."""
