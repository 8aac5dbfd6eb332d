"""Which models there are: the one place that lists them."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Tag

from ssdir.models.base import ObjectModel
from ssdir.models.detected.model import DetectedConfig, DetectedModel
from ssdir.models.detector.ssd import SSD
from ssdir.models.glimpse_vae import GlimpseVAE, GlimpseVAEConfig
from ssdir.models.pooled_features import PooledFeatures, PooledFeaturesConfig
from ssdir.models.space.model import SPACE, SPACEConfig
from ssdir.models.spair.model import SPAIR, SPAIRConfig
from ssdir.models.ssdir import SSDIR, SSDIRConfig


def _kind(values: Any) -> Any:
    return values.get("kind", "SSDIR") if isinstance(values, dict) else getattr(values, "kind", None)


AnyModelConfig: TypeAlias = Annotated[
    Annotated[SSDIRConfig, Tag("SSDIR")]
    | Annotated[GlimpseVAEConfig, Tag("GlimpseVAE")]
    | Annotated[PooledFeaturesConfig, Tag("PooledFeatures")]
    | Annotated[SPACEConfig, Tag("SPACE")]
    | Annotated[SPAIRConfig, Tag("SPAIR")],
    Discriminator(
        _kind,
        custom_error_type="model_kind",
        custom_error_message="kind must be one of SSDIR, GlimpseVAE, PooledFeatures, SPACE, SPAIR",
    ),
]
"""A model's config; `kind` tells which one, SSDIR where it is left out."""

CONFIGS: dict[
    str,
    type[SSDIRConfig]
    | type[GlimpseVAEConfig]
    | type[PooledFeaturesConfig]
    | type[SPACEConfig]
    | type[SPAIRConfig],
] = {
    "SSDIR": SSDIRConfig,
    "GlimpseVAE": GlimpseVAEConfig,
    "PooledFeatures": PooledFeaturesConfig,
    "SPACE": SPACEConfig,
    "SPAIR": SPAIRConfig,
}
"""By `kind`, as are `MODELS`."""

MODELS: dict[str, type[ObjectModel]] = {
    "SSDIR": SSDIR,
    "GlimpseVAE": GlimpseVAE,
    "PooledFeatures": PooledFeatures,
    "SPACE": SPACE,
    "SPAIR": SPAIR,
}


def build_model(config: AnyModelConfig, class_names: list[str], detector: SSD | None = None) -> ObjectModel:
    """A new model of a config's kind.

    Args:
        config: the model's.
        class_names: what its labels will index; models without a detector tell no classes apart.
        detector: a trained one to build on, for the models that have one.
    """
    model_class = MODELS[config.kind]
    if issubclass(model_class, DetectedModel) and isinstance(config, DetectedConfig):
        return model_class(config, class_names, detector)
    return model_class(config, ["object"])
