"""Slot Attention (Locatello et al. 2020): objects from images alone, as slots that share the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssdir.config import Config
from ssdir.data.letterbox import Resize
from ssdir.models.base import GenerativeModel, check_batch, check_size, given_boxes
from ssdir.models.scenes import composite_scene
from ssdir.models.sizes import MAX_DECODED_SIDE, MAX_SIDE, MAX_WIDTH, Widths, check_map
from ssdir.models.slots.attention import SlotUpdates
from ssdir.models.slots.masks import SlotMasks, mask_box_iou, read_masks
from ssdir.models.slots.networks import BroadcastDecoder, FeatureEncoder
from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import with_area
from ssdir.ops.distributed import image_mean, image_rows
from ssdir.ops.glimpses import sample_glimpses


class SlotAttentionConfig(Config):
    """A Slot Attention model. The defaults are the authors' for CLEVR; names of their code in brackets.

    Attributes:
        image_size: side of the square input, in pixels.
        num_slots: slots K of an image, for the background too: one more than the most objects.
        iterations: updates of the slots [num_iterations].
        latent_dim: size D of the slots, which are `z_what` [slot_size].
        mlp_hidden: width of the MLP that updates slots [mlp_hidden_size].
        channels: channels of the convolutions of encoder and decoder.
        encoder_kernels: side of the kernel of each of the encoder's convolutions.
        encoder_strides: stride of each of them.
        decoder_start: side of the grid on which a slot is repeated [decoder_initial_size].
        decoder_kernels: side of the kernel of each of the decoder's transposed convolutions, at least its stride.
        decoder_strides: stride of each of them; they enlarge the grid to the image.
        glimpse_size: side S of the objects that `decode` returns.
        score_threshold: least score of an object at the operating point; 0 for all but background and empty slots.
    """

    kind: Literal["SlotAttention"] = "SlotAttention"
    resize: ClassVar[Resize] = "stretch"
    image_size: int = Field(128, ge=8, le=MAX_SIDE)
    num_slots: int = Field(7, ge=2, le=256)
    iterations: int = Field(3, ge=1, le=100)
    latent_dim: int = Field(64, ge=1, le=MAX_WIDTH)
    mlp_hidden: int = Field(128, ge=1, le=MAX_WIDTH)
    channels: int = Field(64, ge=1, le=MAX_WIDTH)
    encoder_kernels: Widths = (5, 5, 5, 5)
    encoder_strides: Widths = (1, 1, 1, 1)
    decoder_start: int = Field(8, ge=1, le=MAX_SIDE)
    decoder_kernels: Widths = (5, 5, 5, 5, 5, 3)
    decoder_strides: Widths = (2, 2, 2, 2, 1, 1)
    glimpse_size: int = Field(64, ge=4, le=MAX_DECODED_SIDE)
    score_threshold: float = Field(0.0, ge=0, le=1)

    @property
    def feature_side(self) -> int:
        """Height and width of the encoder's last feature map."""
        return self.image_size // prod(self.encoder_strides)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for part in ("encoder", "decoder"):
            kernels, strides = getattr(self, f"{part}_kernels"), getattr(self, f"{part}_strides")
            if len(kernels) != len(strides):
                raise ValueError(f"{part}_kernels has {len(kernels)} entries, but {part}_strides {len(strides)}")
        if any(kernel % 2 == 0 for kernel in self.encoder_kernels):
            raise ValueError(f"encoder_kernels must be odd, got {self.encoder_kernels}")
        if self.image_size % prod(self.encoder_strides):
            raise ValueError(
                f"encoder_strides must divide image_size, {self.image_size}, got {self.encoder_strides}"
            )
        decoded = self.decoder_start * prod(self.decoder_strides)
        if decoded != self.image_size:
            raise ValueError(
                f"decoder_start times all decoder_strides must be image_size, {self.image_size}, got {decoded}"
            )
        if any(k < s for k, s in zip(self.decoder_kernels, self.decoder_strides, strict=True)):
            raise ValueError("decoder_kernels must be at least decoder_strides, so that no pixel is left out")
        check_map(self.channels, self.image_size, self.image_size)
        check_map(self.num_slots * self.channels, self.image_size, self.image_size)
        return self


@dataclass(frozen=True, eq=False)
class DecodedSlots:
    """The K slots of B images, decoded.

    Attributes:
        slots: float (B, K, D).
        pictures: float (B, K, 3, H, W), each slot's image, about in [0, 1].
        logits: float (B, K, 1, H, W), of the masks.
    """

    slots: Tensor
    pictures: Tensor
    logits: Tensor

    @property
    def masks(self) -> Tensor:
        """Masks float (B, K, 1, H, W) in [0, 1], which sum to 1 over the slots."""
        return self.logits.softmax(dim=1)

    def mean(self, weights: Tensor) -> Tensor:
        """Computes the mean of the pictures (B, 3, H, W), by weights (B, K, 1, H, W) of each pixel."""
        return (weights * self.pictures).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-8)


class SlotAttention(GenerativeModel):
    """A model that divides an image among slots, and learns to by reconstructing images, without boxes.

    Slots have no depth. `z_depth` is a number of the image, by which `decode` compares masks with a background
    that it does not know, see `_against_background`; `reconstruct` knows it.

    Attributes:
        noise: float (K, D), where the slots start in evaluation, so that an image always has the same objects; in
            training each image has noise of its own.

    Args:
        config: the model's config.
        class_names: one name for all objects: the model is class-agnostic.
    """

    noise: Tensor
    masks_need_images = True

    def __init__(self, config: SlotAttentionConfig, class_names: list[str] | None = None) -> None:
        super().__init__(config, class_names or ["object"])
        self.config: SlotAttentionConfig = config
        D = config.latent_dim
        self.encoder = FeatureEncoder(
            config.channels, config.encoder_kernels, config.encoder_strides, D, config.feature_side
        )
        self.updates = SlotUpdates(D, config.mlp_hidden, config.iterations)
        self.decoder = BroadcastDecoder(
            D, config.channels, config.decoder_start, config.decoder_kernels, config.decoder_strides
        )
        self.register_buffer("noise", torch.randn(config.num_slots, D))

    @torch.no_grad()
    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Divides images among slots, and returns those that are objects.

        Args:
            images: float (B, 3, H, W) in [0, 1], of the model's image size.
            score_threshold: least score; None takes the config's.

        Returns:
            Objects with scores, labels (0), z_what (slots), z_depth, equal for all of an image, and anchor_index,
            the number of the slot.
        """
        decoded = self._decode_all(images)
        read = read_masks(decoded.masks[:, :, 0])
        threshold = self.config.score_threshold if score_threshold is None else score_threshold
        image_index, slot = ((read.scores > 0) & (read.scores >= threshold)).nonzero(as_tuple=True)
        chosen = (image_index, slot)
        return Objects(
            image_index=image_index,
            batch_size=len(images),
            z_where=read.boxes_cxcywh[chosen],
            scores=read.scores[chosen],
            labels=torch.zeros_like(slot),
            z_what=decoded.slots[chosen],
            z_depth=_against_background(decoded, read)[image_index],
            anchor_index=slot,
        )

    @torch.no_grad()
    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Gives each box the slot whose mask has the largest IoU with it; background is never chosen."""
        given, decoded = given_boxes(images, boxes), self._decode_all(images)
        read, index = read_masks(decoded.masks[:, :, 0]), given.image_index
        overlap = mask_box_iou(decoded.masks[index, :, 0], given.boxes)
        slot = overlap.masked_fill(read.background[index], -1).argmax(dim=1)
        return given.replace(
            z_what=decoded.slots[index, slot],
            z_depth=_against_background(decoded, read)[index],
            anchor_index=slot,
        )

    def decode(
        self, objects: Objects, background: Tensor | None = None, behind_logits: Tensor | None = None
    ) -> Scene:
        """Decodes objects that have z_what and z_depth, and composites them into scenes.

        A slot holds where its object is: an object is the part of its slot's image inside its box.

        Args:
            objects: the objects.
            background: float (B, 3, H, W), the background of the scenes; None for black. `reconstruct` infers it.
            behind_logits: float (B, 1, H, W), the logits of the mask of all that is no object; None: `z_depth`.
        """
        if objects.z_what is None or objects.z_depth is None:
            raise ValueError("objects need z_what and z_depth to be decoded")
        pictures, logits = self.decoder(objects.z_what)
        if behind_logits is None:
            logits = logits + objects.z_depth[:, None, None, None]
        else:
            logits = logits - behind_logits[objects.image_index]
        alpha = _share_pixels(logits, objects.image_index, objects.batch_size)
        boxes = with_area(objects.boxes, self.image_size)
        layers = torch.cat([pictures.clamp(0, 1) * alpha, alpha], dim=1)
        own = torch.arange(len(objects), device=alpha.device)
        layers = sample_glimpses(layers, boxes, own, self.config.glimpse_size, antialias=True)
        appearances, alpha = layers.split([3, 1], dim=1)
        place = (boxes, objects.z_depth, objects.image_index, objects.per_image, (self.image_size,) * 2)
        return composite_scene(appearances, alpha, place, background)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, objects: Objects) -> Scene:
        """Decodes objects over the background of images float (B, 3, H, W): what is no object."""
        check_batch(images, objects)
        decoded = self._decode_all(images)
        read = read_masks(decoded.masks[:, :, 0])
        background = decoded.mean(decoded.masks * read.background[:, :, None, None, None]).clamp(0, 1)
        return self.decode(objects, background, _behind_logits(decoded, read))

    def loss(self, images: Tensor, targets: Objects | None = None) -> dict[str, Tensor]:
        """Computes the squared error of the reconstruction, the only loss.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: not used; part of the interface of `GenerativeModel`.

        Returns:
            `nll`, of pixels in [-1, 1] with unit variance, in nats per image but for a constant; `total`, which is
            the same; and `mse`, of pixels in [0, 1].
        """
        decoded = self._decode_all(images)
        error = (decoded.mean(decoded.masks) - images).square()
        nll = 2 * image_mean(error.sum(dim=(1, 2, 3)))
        return {"nll": nll, "total": nll, "mse": image_mean(error.detach())}

    def _decode_all(self, images: Tensor) -> DecodedSlots:
        """Computes and decodes the slots of images."""
        check_size(images, self.image_size)
        K, D = self.noise.shape
        noise = image_rows(len(images), images.device).randn(K, D) if self.training else self.noise
        slots = self.updates(self.encoder(images), noise.expand(len(images), K, D))
        pictures, logits = self.decoder(slots.flatten(0, 1))
        B = len(images)
        return DecodedSlots(slots, pictures.unflatten(0, (B, K)), logits.unflatten(0, (B, K)))


def _against_background(decoded: DecodedSlots, read: SlotMasks) -> Tensor:
    """Computes `z_depth` (B,): minus the mean logit of what is no object, where objects end.

    A mask is a softmax over the slots of its image, of which only the objects are decoded later. Without the
    others, `decode` takes their logits together as one number: the mean, weighted by m (1 - m), which is large at
    the edges of an object with mask m.
    """
    rest, masks = _behind_logits(decoded, read), decoded.masks
    edges = (masks * (1 - masks) * (read.scores > 0)[:, :, None, None, None]).sum(dim=1)
    return -(edges * rest).sum(dim=(1, 2, 3)) / edges.sum(dim=(1, 2, 3)).clamp(min=1e-8)


def _behind_logits(decoded: DecodedSlots, read: SlotMasks) -> Tensor:
    """Computes the logits (B, 1, H, W) of the masks of all slots that are no objects together."""
    is_object = (read.scores > 0)[:, :, None, None, None]
    return decoded.logits.masked_fill(is_object, -torch.inf).logsumexp(dim=1)


def _share_pixels(logits: Tensor, image_index: Tensor, batch_size: int) -> Tensor:
    """Computes the softmax of logits (M, 1, H, W) over the objects of each image, and a background of logit 0."""
    place = image_index[:, None, None, None].expand_as(logits)
    base = logits.new_zeros(batch_size, *logits.shape[1:])
    highest = base.scatter_reduce(0, place, logits.detach(), "amax")
    weights = (logits - highest[image_index]).exp()
    total = (-highest).exp().scatter_add(0, place, weights)
    return weights / total[image_index]
