"""Pictures of what a model sees and draws, and of how its codes lie: tensors in, pixels or PNG bytes out."""

from ssdir.plots.charts import (
    MIN_TSNE_POINTS,
    Curve,
    Embedding,
    confusion_matrix,
    embedding_map,
    heatmaps,
    loss_curves,
    timing_bar,
    tsne,
)
from ssdir.plots.image_grids import (
    Picture,
    box_grid,
    principal_directions,
    reconstruction_grid,
    to_png,
    traversal_grid,
    traverse,
)

__all__ = [
    "MIN_TSNE_POINTS",
    "Curve",
    "Embedding",
    "Picture",
    "box_grid",
    "confusion_matrix",
    "embedding_map",
    "heatmaps",
    "loss_curves",
    "principal_directions",
    "reconstruction_grid",
    "timing_bar",
    "to_png",
    "traversal_grid",
    "traverse",
    "tsne",
]
