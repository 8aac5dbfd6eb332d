"""Puts a trained model into the package: weights in half precision, and a card with what was measured.

python tools/ship_model.py RUN NAME --metrics JSON --description "…" --data "…"
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssdir.models.io import load_model, save_model

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "src" / "ssdir" / "weights"
FIGURES = {
    "AP50": ("detection/ap50", ".3f"),
    "latents per true object": ("detection/latents_per_object", ".3f"),
    "reconstruction MSE": ("reconstruction/mse", ".4f"),
    "linear probe of `z_what`, conditional": ("probe/accuracy", ".3f"),
    "linear probe of `z_what`, end to end": ("probe/accuracy_end_to_end", ".3f"),
}
LIMIT = 8_000_000
"""Maximum bytes of a shipped model."""


def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a model or a run.")],
    name: Annotated[str, typer.Argument(help="Name to load it by.")],
    metrics: Annotated[Path, typer.Option(help="What `ssdir evaluate` or `ssdir demo` measured on it.")],
    description: Annotated[str, typer.Option(help="One line for `ssdir models`.")],
    data: Annotated[str, typer.Option(help="What it was trained on, and under which licence that is.")],
) -> None:
    """Writes the model's folder in `src/ssdir/weights`."""
    report = json.loads(metrics.read_text(encoding="utf-8"))
    measured, threshold = report["metrics"], report["provenance"]["config"].get("score_threshold")
    folder, model = WEIGHTS / name, load_model(run)
    if threshold is not None:  # what it was measured at
        detector = model.config.ssd.model_copy(update={"score_threshold": threshold})
        model.config = model.config.model_copy(update={"ssd": detector})
    save_model(model, folder, description, half=True)
    size = (folder / "model.safetensors").stat().st_size
    if size > LIMIT:
        raise SystemExit(f"the weights take {size:,} bytes, a shipped model may take {LIMIT:,}: shrink the model")
    rows = "\n".join(f"| {label} | {measured[key]:{spec}} |" for label, (key, spec) in FIGURES.items())
    source = metrics.resolve().relative_to(ROOT)
    card = f"""# {name}

SSDIR, {description}. {data}

For: trying ssdir, tests, and light digits on dark pictures of about 128×128 pixels. Not for: anything else; it has
been trained on nothing else. The detector was supervised with boxes but no classes; the embeddings were learned by
reconstruction and by comparing views. Weights are stored in half precision.

On test images with digits never seen in training (`{source}` of the repository):

| | |
|---|---|
{rows}
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    typer.run(ship)
