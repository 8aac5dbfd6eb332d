"""The studio: the model, samples, explored objects and other models that all browser windows share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ssdir.analysis.projections import PrincipalAxes
from ssdir.errors import InputError
from ssdir.formatting import counted, quote
from ssdir.identity import Identity
from ssdir.inference.predictor import Predictor, as_generative, load
from ssdir.models.io import find_model, read_description
from ssdir.models.shipped import model_source, shipped_models
from ssdir.store.info import read_info
from ssdir.studio.collection import Collection, ObjectMap, collect_images, map_objects, open_collection
from ssdir.studio.images import Samples, samples_for, samples_of_folder

NUM_SAMPLES = 30


def default_model(objects: str | Path | None = None, images: Path | None = None) -> str:
    """Returns the model that the studio opens with, where none is named.

    A file of objects names its own. A folder of images is taken to be of photographs. Samples are shown with
    `tiny-digits`, whose objects decode to what they look like, so that edits can be seen.
    """
    if objects is not None:
        with suppress(InputError):  # Opening the file says what is wrong with it.
            return read_info(objects).model
    return "tiny-digits" if images is None else "photos"


@dataclass(frozen=True, eq=False)
class Studio:
    """Everything that the browser windows share.

    Attributes:
        model: the model, as `ssdir.load` takes it.
        identity: identity of the model, for files of objects.
        predictor: the model.
        other_models: names of the models that it can be compared with.
        about: what the model was trained on, as its folder says.
        samples: images to start with.
        axes: principal axes of the explored objects' embeddings.
        collection: the explored objects.
        objects_map: the map of the explored objects.
    """

    model: str
    identity: Identity
    predictor: Predictor
    other_models: Sequence[str]
    about: str
    samples: Samples
    axes: PrincipalAxes
    collection: Collection
    objects_map: ObjectMap
    _loaded: dict[str, Predictor] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Name of the model, to be shown."""
        return _name(self.model)

    @classmethod
    def open(
        cls,
        model: str,
        objects: str | Path | None = None,
        images: Path | None = None,
        compared: Sequence[str] = (),
        device: str | None = None,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> Studio:
        """Loads everything that the windows share.

        Args:
            model: a shipped model's name, or a folder.
            objects: a file or folder that `ssdir encode` wrote; None explores the samples' objects.
            images: folder of the file's images, see `open_collection`; without a file, the samples' folder.
            compared: models to compare with, listed before the shipped ones.
            device: see `ssdir.load`.
            on_stage: called with what is being done.

        Raises:
            InputError: for a model that is missing or has no decoder, for a file of objects that can't be read or
                belongs to another model, for images that can't be read, and for fewer than two objects.
        """
        on_stage(f"loading the model {_name(model)}")
        predictor = load(model, device)
        as_generative(predictor.model)
        identity = Identity.of(model_source(model), predictor)
        for other in compared:
            find_model(other)
        on_stage("detecting objects")
        stored = open_collection(objects, identity, images) if objects else None
        samples = _samples(predictor, model, stored, images)
        collection = stored or collect_images(predictor, samples.images)
        if len(collection.objects) < 2:
            what, mend = f"'{objects}' holds", "encode more images"
            if stored is None:
                what = f"'{model}' detects"
                mend = "give more images, or a model that was trained on such images"
            count = counted(len(collection.objects), "object")
            raise InputError(f"{what} {count}, two are needed at least: {mend}")
        on_stage("mapping the objects")
        shipped = [name for name in shipped_models() if name != model]
        return cls(
            model=model,
            identity=identity,
            predictor=predictor,
            other_models=list(dict.fromkeys([*compared, *shipped])),
            about=read_description(model),
            samples=samples,
            axes=PrincipalAxes.fit(collection.z_what),
            collection=collection,
            objects_map=map_objects(collection, predictor),
        )

    def other_model(self, name: str) -> Predictor:
        """Returns one of `other_models`, which is loaded at the first call."""
        if name not in self.other_models:
            raise InputError(f"{quote(name)} is none of the models to compare with")
        if name not in self._loaded:
            other = load(name, self.predictor.device)
            as_generative(other.model)
            self._loaded[name] = other
        return self._loaded[name]


def _name(model: str) -> str:
    """Returns the last part of a model's name or folder, which may be given as `.`."""
    return Path(model).resolve().name


def _samples(predictor: Predictor, model: str, stored: Collection | None, folder: Path | None) -> Samples:
    """Returns images of the user's own, if there are any to read, and otherwise such as the model may know."""
    if stored and (own := stored.samples(NUM_SAMPLES)):
        return Samples(own, "The images above are those of the explored objects.")
    if folder and not stored:
        return samples_of_folder(folder, NUM_SAMPLES)
    return samples_for(predictor, model, NUM_SAMPLES)
