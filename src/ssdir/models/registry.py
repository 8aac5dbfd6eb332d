"""The registry of models: the one place that lists them."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import Discriminator, Tag

from ssdir.models.backbones.build import build_backbone
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.base import ObjectModel
from ssdir.models.detected.model import DetectedConfig, DetectedModel
from ssdir.models.detector.ssd import SSD, SSDConfig
from ssdir.models.glimpse_vae import GlimpseVAE, GlimpseVAEConfig
from ssdir.models.pooled_features import PooledFeatures, PooledFeaturesConfig
from ssdir.models.slots.model import SlotAttention, SlotAttentionConfig
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
    | Annotated[SPAIRConfig, Tag("SPAIR")]
    | Annotated[SlotAttentionConfig, Tag("SlotAttention")],
    Discriminator(
        _kind,
        custom_error_type="model_kind",
        custom_error_message="kind must be one of SSDIR, GlimpseVAE, PooledFeatures, SPACE, SPAIR, SlotAttention",
    ),
]
"""The config of a recipe's model, chosen by `kind`; SSDIR where it is left out."""

StoredConfig: TypeAlias = (
    SSDConfig
    | SSDIRConfig
    | GlimpseVAEConfig
    | PooledFeaturesConfig
    | SPACEConfig
    | SPAIRConfig
    | SlotAttentionConfig
)
"""The config of any model in a folder: a recipe's, or that of the detector which a recipe trains first."""

MODELS: dict[str, tuple[type[ObjectModel], type[StoredConfig]]] = {
    "SSD": (SSD, SSDConfig),
    "SSDIR": (SSDIR, SSDIRConfig),
    "GlimpseVAE": (GlimpseVAE, GlimpseVAEConfig),
    "PooledFeatures": (PooledFeatures, PooledFeaturesConfig),
    "SPACE": (SPACE, SPACEConfig),
    "SPAIR": (SPAIR, SPAIRConfig),
    "SlotAttention": (SlotAttention, SlotAttentionConfig),
}
"""Each model and its config, by `kind`."""

ConfigT = TypeVar("ConfigT", bound=StoredConfig)


def build_model(config: StoredConfig, class_names: list[str], detector: SSD | None = None) -> ObjectModel:
    """Builds a new model of a config's kind.

    Args:
        config: the model's.
        class_names: the classes that labels index; models without a detector are class-agnostic and ignore them.
        detector: a trained detector, for the models that have one.
    """
    model_class, _ = MODELS[config.kind]
    if issubclass(model_class, DetectedModel):
        return model_class(config, class_names, detector)  # type: ignore[arg-type]
    return model_class(config, class_names if isinstance(config, SSDConfig) else ["object"])


def without_pretrained(config: ConfigT) -> ConfigT:
    """Returns a config whose backbone starts from random weights, so that no weights are fetched in vain."""
    if isinstance(config, DetectedConfig):
        return config.model_copy(update={"ssd": without_pretrained(config.ssd)})  # type: ignore[return-value]
    if not isinstance(config, SSDConfig) or isinstance(config.backbone, ConvConfig):
        return config
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": None})})


def fetch_pretrained(config: StoredConfig) -> None:
    """Reads the pretrained weights of a model's backbone, if it has any, so that later reads come from the cache.

    Raises:
        InputError: if they are missing, damaged, out of reach or another network's.
    """
    detector = config.ssd if isinstance(config, DetectedConfig) else config
    if isinstance(detector, SSDConfig) and detector != without_pretrained(detector):
        build_backbone(detector.backbone, detector.image_size)
