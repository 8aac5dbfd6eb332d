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
    contact_sheet,
    principal_directions,
    reconstruction_sheet,
    to_png,
    traversal_sheet,
    traverse,
)

__all__ = [
    "MIN_TSNE_POINTS",
    "Curve",
    "Embedding",
    "Picture",
    "confusion_matrix",
    "contact_sheet",
    "embedding_map",
    "heatmaps",
    "loss_curves",
    "principal_directions",
    "reconstruction_sheet",
    "timing_bar",
    "to_png",
    "traversal_sheet",
    "traverse",
    "tsne",
]
