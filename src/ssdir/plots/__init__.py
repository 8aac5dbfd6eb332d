"""Charts and image grids: arrays and tensors in, pixels or PNG bytes out."""

from ssdir.plots.charts import Curve, confusion_matrix, embedding_map, heatmaps, loss_curves, timing_bar
from ssdir.plots.image_grids import (
    BoxedImage,
    box_grid,
    reconstruction_grid,
    to_pixels,
    to_png,
    traversal_grid,
)

__all__ = [
    "BoxedImage",
    "Curve",
    "box_grid",
    "confusion_matrix",
    "embedding_map",
    "heatmaps",
    "loss_curves",
    "reconstruction_grid",
    "timing_bar",
    "to_pixels",
    "to_png",
    "traversal_grid",
]
