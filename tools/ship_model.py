"""Puts a trained model into the package: weights in half precision, and a model card with its metrics.

python tools/ship_model.py RUN NAME --metrics JSON [--comparison JSON] [--validation DATA]

`tools/model_cards/NAME.yaml` holds the texts of the card that are written by hand: see `CardText`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from ssdir.config import Config, parse
from ssdir.data.readers.registry import open_dataset
from ssdir.documents import read_json, read_yaml
from ssdir.inference.domain import FAMILIAR_QUANTILE, familiar_error
from ssdir.models.io import load_model, save_model
from ssdir.models.shipped import WEIGHTS_FILE

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "src" / "ssdir" / "weights"
TEXTS = ROOT / "tools" / "model_cards"
FIGURES = {
    "detection/ap50": ("AP50", ".3f"),
    "detection/latents_per_object": ("latents per true object", ".3f"),
    "reconstruction/mse": ("reconstruction MSE", ".4f"),
    "probe/accuracy": ("linear probe of `z_what`, conditional", ".3f"),
    "probe/accuracy_end_to_end": ("linear probe of `z_what`, end to end", ".3f"),
}
"""Rows of a card, of what `ssdir evaluate` or `ssdir demo` measured."""
COMPARED_FIGURES = {
    "true_boxes/probe/accuracy": ("linear probe at true boxes", ".3f"),
    "true_boxes/knn_10/accuracy": ("10 nearest neighbours at true boxes", ".3f"),
    "true_boxes/knn_1/balanced": ("nearest neighbour at true boxes, class-balanced", ".3f"),
    "retrieval/map": ("retrieval across images, mean average precision", ".3f"),
    "few_labels/5/accuracy": ("accuracy from 5 labels per class", ".3f"),
    "robustness/padding/cosine": ("cosine between an object and itself in a padded image", ".3f"),
    "robustness/unrelated_cosine": ("cosine between unrelated objects, median", ".3f"),
}
"""Further rows, of what `ssdir reproduce photos` measured."""
LIMIT = 16_000_000
"""Maximum bytes of a shipped model's weights."""


class CardText(Config):
    """The texts of a model card.

    Attributes:
        description: one line for `ssdir models`.
        data: the recipe, what it was trained on, and under which licence that is; whole sentences.
        use: what the model is for, and what it is not for; whole sentences.
        supervision: what detector and embeddings learned from; whole sentences.
        measured_on: the data of the metrics, such as `test images with digits never seen in training`.
        compared_on: the data of the metrics of `--comparison`; None repeats `measured_on`.
    """

    description: str
    data: str
    use: str
    supervision: str
    measured_on: str
    compared_on: str | None = None


def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a model or a run.")],
    name: Annotated[str, typer.Argument(help="Name to load it by.")],
    metrics: Annotated[Path, typer.Option(help="What `ssdir evaluate` or `ssdir demo` measured on it.")],
    comparison: Annotated[
        Path | None, typer.Option(help="Its row of `ssdir reproduce photos`, such as results/photos/….json.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="YAML of its card; tools/model_cards/NAME.yaml.")] = None,
    score_threshold: Annotated[
        float | None, typer.Option(help="Least score of an object; by default what it was measured at.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Data set whose val split is like the training images."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make the model's folder in.")] = WEIGHTS,
) -> None:
    """Writes the model's folder in `src/ssdir/weights`."""
    text_file = text or TEXTS / f"{name}.yaml"
    words = parse(CardText, read_yaml(text_file), source=f"'{text_file}'")
    folder, model = out / name, load_model(run)
    threshold = score_threshold or read_json(metrics)["provenance"]["config"].get("score_threshold")
    if threshold is not None:
        detector = model.config.ssd.model_copy(update={"score_threshold": threshold})
        model.config = model.config.model_copy(update={"ssd": detector})
    if validation is not None:
        dataset = open_dataset(validation, "val", image_size=model.image_size, resize=model.resize)
        model.familiar_error = familiar_error(model, dataset)
    card = card_of(name, words, metrics, comparison) + _familiar(model.familiar_error)
    with TemporaryDirectory() as made:
        save_model(model, made, words.description, half=True)
        (Path(made) / "README.md").write_text(card, encoding="utf-8")
        size = (Path(made) / WEIGHTS_FILE).stat().st_size
        if size > LIMIT:
            raise SystemExit(
                f"the weights take {size:,} bytes, a shipped model may take {LIMIT:,}: shrink the model"
            )
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, folder, dirs_exist_ok=True)
        folder.chmod(0o755)  # a temporary folder is private to its user


def card_of(name: str, words: CardText, metrics: Path, comparison: Path | None) -> str:
    """Returns the card's Markdown, with each metric that the reports contain."""
    card = f"""# {name}

SSDIR, {words.description}. {words.data}

{words.use} {words.supervision} Weights are stored in half precision.
"""
    card += _figures(words.measured_on, metrics, FIGURES)
    if comparison is not None:
        card += _figures(words.compared_on or words.measured_on, comparison, COMPARED_FIGURES)
    return card


def _familiar(error: float | None) -> str:
    """Returns a sentence about images unlike the training data; empty if no error was measured."""
    if error is None:
        return ""
    return (
        f"\nIn {FAMILIAR_QUANTILE:.0%} of its validation images, decoded objects have a mean squared error of at "
        f"most {error:.4f}; `ssdir encode` and the studio report images with a larger one as unlike those that it "
        "was trained on (`results/domain.json` of the repository has how often).\n"
    )


def _figures(measured_on: str, report: Path, figures: dict[str, tuple[str, str]]) -> str:
    """Returns a sentence and a table of metrics.

    Raises:
        SystemExit: if the report has none of the metrics.
    """
    measured: dict[str, Any] = read_json(report)["metrics"]
    known = {key: row for key, row in figures.items() if measured.get(key) is not None}
    if not known:
        raise SystemExit(f"'{report}' has none of the card's figures: {', '.join(figures)}")
    rows = "\n".join(f"| {label} | {measured[key]:{spec}} |" for key, (label, spec) in known.items())
    source = report.resolve()
    shown = source.relative_to(ROOT) if source.is_relative_to(ROOT) else source.name
    return f"\nOn {measured_on} (`{shown}` of the repository):\n\n| | |\n|---|---|\n{rows}\n"


if __name__ == "__main__":
    typer.run(ship)
