"""Identity of the model that made embeddings, in files of objects, indices, classifiers and exported models."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from ssdir.config import Record
from ssdir.errors import InputError

MAX_LATENT_DIM = 65_536
"""Maximum size of an embedding that a file may state."""

LatentDim = Annotated[int, Field(ge=1, le=MAX_LATENT_DIM)]
ClassNames = Annotated[list[str], Field(min_length=1)]
Fingerprint = Annotated[str, Field(min_length=1, max_length=256)]


class Fingerprinted(Protocol):
    """Anything that records the weights of a model."""

    @property
    def fingerprint(self) -> str:
        """Digest of the weights."""


class Maker(Fingerprinted, Protocol):
    """A model, or anything that records the model of its embeddings."""

    @property
    def class_names(self) -> list[str]:
        """The model's classes."""

    @property
    def latent_dim(self) -> int:
        """Size D of its `z_what`; 0 for a detector, whose objects have none."""


class Identity(Record):
    """The model that made embeddings.

    Attributes:
        model: as `ssdir.load` takes it: the name of a shipped model, or a folder or file.
        class_names: the classes that labels index.
        latent_dim: size D of `z_what`.
        fingerprint: digest of its weights.
    """

    model: str
    class_names: ClassNames
    latent_dim: LatentDim
    fingerprint: Fingerprint

    @classmethod
    def of(cls, model: str, maker: Maker) -> Identity:
        """The identity of a loaded model, under its name or absolute path (`models.shipped.model_source`).

        Raises:
            InputError: if the model gives no embeddings.
        """
        check_embeds(model, maker)
        return cls(
            model=model,
            class_names=list(maker.class_names),
            latent_dim=maker.latent_dim,
            fingerprint=maker.fingerprint,
        )


def check_embeds(model: str, maker: Maker) -> None:
    """Raises InputError if a model, under the name or path that it was loaded by, is a detector alone."""
    if not maker.latent_dim:
        raise InputError(
            f"'{model}' is a detector, whose objects have no embeddings: give a model that was trained on it"
        )


def comparable(one: Fingerprinted, other: Fingerprinted) -> bool:
    """Returns whether embeddings are of the same weights: others aren't comparable, even of equal sizes.

    Classes don't count: boxes of another detector have their own.
    """
    return one.fingerprint == other.fingerprint


def check_comparable(one: Fingerprinted, one_name: str, other: Fingerprinted, other_name: str) -> None:
    """Refuses embeddings of different models.

    Args:
        one: a model, or something with embeddings.
        one_name: its name in the error.
        other: the other model, or something else with embeddings.
        other_name: its name in the error.

    Raises:
        InputError: if the fingerprints differ.
    """
    if not comparable(one, other):
        raise InputError(
            f"{one_name} and {other_name} don't go together: embeddings of different models, or of one that was "
            "trained again since, can't be compared"
        )
