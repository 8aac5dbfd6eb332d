"""Figures of the paper (Zieliński & Kajdanowicz, Learning Scale-Invariant Object Representations with …)."""

from __future__ import annotations

from collections.abc import Mapping

PROBE: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "SSDIR": {
        "accuracy": (0.9789, 0.0016),
        "precision": (0.9787, 0.0017),
        "recall": (0.9786, 0.0016),
        "f1": (0.9786, 0.0016),
    },
    "SPAIR": {
        "accuracy": (0.1919, 0.0073),
        "precision": (0.1825, 0.0087),
        "recall": (0.2019, 0.0092),
        "f1": (0.1803, 0.0102),
    },
    "SPACE": {
        "accuracy": (0.2121, 0.0432),
        "precision": (0.2020, 0.0431),
        "recall": (0.2158, 0.0435),
        "f1": (0.1992, 0.0462),
    },
}
"""Table 2: logistic regression on the latents of scattered MNIST's objects; mean, deviation, 3 trainings."""

CRITERIA = (
    "unsupervised",
    "embeddings are read from",
    "varying sizes",
    "chosen kinds of objects",
    "parallel encoding",
)

DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "GlimpseVAE": ("half", "glimpses", "✓", "✓", "✗"),
    "SPAIR": ("✓", "glimpses", "✗", "✗", "✗"),
    "SPACE": ("✓", "glimpses", "✗", "✗", "✗"),
    "SSDIR": ("half", "feature maps", "✓", "✓", "✓"),
}
"""Table 1, by `CRITERIA`; GlimpseVAE is its "basic VAE", "half" its "semi-": the detector learns from labels."""


def quoted(value: tuple[float, float]) -> str:
    """Formats mean and deviation as the paper prints them."""
    return f"{value[0]:.4f} ±\N{NO-BREAK SPACE}{value[1]:.4f}"
