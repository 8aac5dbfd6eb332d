"""Opening a studio: the model, samples, the objects to explore and their map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ssdir.analysis.projections import PrincipalAxes
from ssdir.identity import Identity
from ssdir.inference.predictor import as_generative, load
from ssdir.models.io import find_model
from ssdir.models.shipped import list_models
from ssdir.studio.collection import collect_samples, map_objects, open_collection
from ssdir.studio.samples import sample_pictures
from ssdir.studio.workspace import Studio


def open_studio(
    model: str,
    objects: Path | None = None,
    rivals: Sequence[str] = (),
    device: str | None = None,
    advance: Callable[[int, int, str], None] = lambda done, total, stage: None,
) -> Studio:
    """Loads everything that a studio needs.

    Args:
        model: a shipped model's name, or a folder.
        objects: a file that `ssdir encode` wrote; None explores the samples' objects.
        rivals: models to compare with, before the shipped ones.
        device: see `ssdir.load`.
        advance: is told how many steps are done, of how many, and at what.

    Raises:
        InputError: for models that are not there or don't draw, and files of objects that can't be read or are
            of another model.
    """
    advance(0, 3, "loading the model")
    predictor = load(model, device)
    as_generative(predictor.model)
    identity = Identity.of(model, predictor)
    for rival in rivals:
        find_model(rival)
    advance(1, 3, "finding the objects")
    samples = sample_pictures()
    collection = collect_samples(predictor, samples) if objects is None else open_collection(objects, identity)
    advance(2, 3, "mapping the objects")
    objects_map = map_objects(collection, predictor)
    shipped = [card.name for card in list_models() if card.name != model]
    codes = collection.objects.z_what
    assert codes is not None
    return Studio(
        name=Path(model).name,
        identity=identity,
        predictor=predictor,
        rivals=list(dict.fromkeys([*rivals, *shipped])),
        samples=samples,
        axes=PrincipalAxes.fit(codes),
        collection=collection,
        objects_map=objects_map,
    )
