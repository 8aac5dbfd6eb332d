"""The consistency term: the same object, seen again in another size, tilt and hand, keeps its code.

A departure from the paper, which only hopes that codes are scale-invariant. A second view of each image is made
by a random similarity and shear, and, where asked for, elastic distortion, thicker or thinner strokes and patches
that hide parts; the objects' boxes follow, and a contrastive loss (InfoNCE: van den Oord et al. 2018; with a
projection head as in SimCLR: Chen et al. 2020) asks that an object's two codes find each other among those of all
objects of the batch. No label is used.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbone import init_xavier
from ssdir.objects import Objects
from ssdir.ops.boxes import clip_cxcywh
from ssdir.ops.precision import in_full_precision


class ConsistencyConfig(Config):
    """The second view, and how codes are compared.

    Attributes:
        weight: coefficient of the term, per object and in nats; 0 leaves it out.
        zoom: largest change in size, as a factor; drawn log-uniformly between its inverse and itself.
        rotation: largest turn either way, in degrees.
        shear: largest horizontal shear either way.
        elastic: standard deviation of the shift of each point of a 10×10 grid laid over the image, relative to its
            side; in between, shifts are interpolated (elastic distortion: Simard et al. 2003). Boxes don't follow.
        thickness: largest share at which the view is mixed with its own dilation or erosion by one pixel, which
            makes bright strokes thicker or thinner.
        patches: rectangles of one grey, 3 to 11 % of the image's side, that hide parts of the view.
        temperature: of the softmax over the batch's objects.
    """

    weight: float = Field(0.0, ge=0)
    zoom: float = Field(1.6, ge=1)
    rotation: float = Field(15.0, ge=0, le=90)
    shear: float = Field(0.2, ge=0, le=1)
    elastic: float = Field(0.0, ge=0, le=0.1)
    thickness: float = Field(0.0, ge=0, le=1)
    patches: int = Field(0, ge=0)
    temperature: float = Field(0.2, gt=0)


ELASTIC_POINTS = 10
PATCH_SIDES = (0.03, 0.11)


class ProjectionHead(nn.Sequential):
    """Maps codes to where they are compared, so that codes keep what the decoder needs."""

    def __init__(self, latent_dim: int, hidden: int = 512, compared_dim: int = 128) -> None:
        super().__init__(
            nn.Linear(latent_dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, compared_dim),
        )
        self.apply(init_xavier)


def random_views(B: int, config: ConsistencyConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draws an affine map per image, in coordinates from -1 to 1.

    Returns:
        linear (B, 2, 2) and offset (B, 2): a point p of the image is at linear · p + offset in the view.
    """

    def symmetric(extent: float) -> Tensor:
        return (2 * torch.rand(B, device=device) - 1) * extent

    zoom = torch.exp(symmetric(math.log(config.zoom)))
    angle, shear = symmetric(math.radians(config.rotation)), symmetric(config.shear)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(B, 2, 2)
    shearing = torch.eye(2, device=device).repeat(B, 1, 1)
    shearing[:, 0, 1] = shear
    offset = (2 * torch.rand(B, 2, device=device) - 1) * (zoom - 1).abs()[:, None]
    return zoom[:, None, None] * rotation @ shearing, offset


def view_images(images: Tensor, linear: Tensor, offset: Tensor, elastic: float = 0.0) -> Tensor:
    """The views (B, C, H, W) of images (B, C, H, W); black where they see nothing.

    Args:
        images: float (B, C, H, W).
        linear: float (B, 2, 2), see `random_views`.
        offset: float (B, 2).
        elastic: see `ConsistencyConfig`.
    """
    inverse = torch.linalg.inv(linear)
    theta = torch.cat([inverse, -inverse @ offset[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    if elastic:
        # Twice: coordinates go from -1 to 1, shifts are relative to the side.
        points = torch.randn(len(images), 2, ELASTIC_POINTS, ELASTIC_POINTS, device=images.device) * 2 * elastic
        shifts = F.interpolate(points, size=images.shape[-2:], mode="bicubic", align_corners=True)
        grid = grid + shifts.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def vary_strokes(images: Tensor, thickness: float) -> Tensor:
    """Mixes each image (B, C, H, W) with its dilation or its erosion, at a share of up to `thickness`."""
    share = (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1) * thickness
    dilated = F.max_pool2d(images, 3, stride=1, padding=1)
    eroded = -F.max_pool2d(-images, 3, stride=1, padding=1)
    return torch.lerp(images, torch.where(share > 0, dilated, eroded), share.abs())


def hide_patches(images: Tensor, patches: int) -> Tensor:
    """Covers each image (B, C, H, W) with `patches` rectangles of random place, size and grey."""
    (B, _, H, W), device = images.shape, images.device
    across = (torch.arange(W, device=device) + 0.5) / W
    down = (torch.arange(H, device=device) + 0.5) / H
    smallest, largest = PATCH_SIDES
    for _ in range(patches):
        half = (smallest + (largest - smallest) * torch.rand(B, 2, 1, device=device)) / 2
        center = torch.rand(B, 2, 1, device=device)
        columns = (across - center[:, 0]).abs() < half[:, 0]
        rows = (down - center[:, 1]).abs() < half[:, 1]
        hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
        images = torch.where(hidden, torch.rand(B, 1, 1, 1, device=device), images)
    return images


def view_objects(objects: Objects, linear: Tensor, offset: Tensor, min_side: float) -> tuple[Objects, Tensor]:
    """Where the objects are in the views, and which are well inside and not too small.

    The new box bounds the ellipse inscribed in the old one: exact for a pure zoom, and closer to a turned
    object's own box than the bounding box of the turned corners.

    Args:
        objects: with z_where.
        linear: float (B, 2, 2).
        offset: float (B, 2).
        min_side: least width and height of a kept box, relative to the view.

    Returns:
        All objects with their new z_where, and a mask (M,) of those to compare.
    """
    map_of, shift = linear[objects.image_index], offset[objects.image_index]
    center, size = objects.z_where[:, :2] * 2 - 1, objects.z_where[:, 2:]
    moved = ((map_of @ center[:, :, None])[:, :, 0] + shift + 1) / 2
    extent = (map_of * size[:, None, :]).norm(dim=2)
    low, high = moved - extent / 2, moved + extent / 2
    visible = (high.clamp(0, 1) - low.clamp(0, 1)) / extent
    kept = (visible.prod(dim=1) > 0.9) & (extent > min_side).all(dim=1)
    return objects.replace(z_where=clip_cxcywh(torch.cat([moved, extent], dim=1))), kept


@in_full_precision
def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over rows of -log of the chance that a row finds its partner among all rows, both ways.

    Args:
        first: float (M, D), compared by cosine.
        second: float (M, D), row-aligned.
        temperature: divisor of the cosines.

    Returns:
        A scalar; 0 without rows.
    """
    if not len(first):
        return first.sum()
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    partner = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2
