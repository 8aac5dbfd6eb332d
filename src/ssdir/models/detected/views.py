"""Augmented views of objects, for the consistency term.

Either the whole image is zoomed, rotated, sheared and distorted (`warp`); or each object is cut out, distorted
alone, and pasted at the position and size of another object of the batch (`copy_paste`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.objects import Objects
from ssdir.ops.boxes import clip_cxcywh, grow_boxes, to_xyxy
from ssdir.ops.compositing import composite_alpha
from ssdir.ops.distributed import Rows, gather_rows, image_rows, rows_of, totals
from ssdir.ops.glimpses import crop_glimpses


class ViewConfig(Config):
    """Options of an augmented view.

    Attributes:
        view: `warp` warps the image as a whole. `copy_paste` makes new scenes of the batch's objects, over black:
            each is pasted at the position and size of another, so that neither reveals which object it is.
        zoom: largest change in size, as a factor; sampled log-uniformly between its inverse and itself. With
            `copy_paste`, it multiplies the size that the object gets.
        rotation: largest rotation either way, in degrees.
        shear: largest horizontal shear either way.
        elastic: standard deviation of the shift of each point of a grid (elastic distortion: Simard et al. 2003),
            10×10 over the image and relative to its side; with `copy_paste` 4×4 over each object, relative to its
            box. In between, shifts are interpolated. Boxes don't follow.
        stroke_width: largest share at which the view is mixed with its own dilation or erosion by one pixel, which
            makes bright strokes thicker or thinner. With `copy_paste`, objects have 40×40 pixels.
        random_erasing: number of grey rectangles, 3 to 11 % of the image's side, that hide parts of the view.
        jitter: standard deviation of noise on the boxes in the view, relative to their sides, like detection
            errors.
    """

    view: Literal["warp", "copy_paste"] = "warp"
    zoom: float = Field(1.6, ge=1, le=100)
    rotation: float = Field(15.0, ge=0, le=90)
    shear: float = Field(0.2, ge=0, le=1)
    elastic: float = Field(0.0, ge=0, le=0.1)
    stroke_width: float = Field(0.0, ge=0, le=1)
    random_erasing: int = Field(0, ge=0, le=1000)
    jitter: float = Field(0.0, ge=0, le=0.2)


IMAGE_POINTS, OBJECT_POINTS = 10, 4
PATCH_SIDES = (0.03, 0.11)
CUT_OUT_SIZE = 40
CUT_OUT_MARGIN = 1.25
"""Ratio of a cut-out's sides to its box's: in images, too, the box's surroundings are visible."""

DEPTH_RANGE = 10.0
"""Range of depths in new scenes: for most objects that overlap, one is near enough to hide the other."""

MAX_JITTER = 0.3


@dataclass(frozen=True)
class View:
    """An augmented view of a batch.

    Attributes:
        images: float (B, C, H, W), the augmented images.
        objects: the N objects in them.
        rows: int64 (N,), the row of each among the original objects, of all processes.
    """

    images: Tensor
    objects: Objects
    rows: Tensor


def second_view(images: Tensor, objects: Objects, config: ViewConfig, min_side: float) -> View:
    """Makes an augmented view of the objects of some images.

    Args:
        images: float (B, 3, H, W) in [0, 1], square.
        objects: their M objects, with z_where, ordered by image.
        config: the augmentation.
        min_side: least width and height of an object in the view, relative to the image.
    """
    if config.view == "warp" or not totals([len(objects)], images.device)[0]:
        view = _warp(images, objects, config, min_side)
    else:
        view = _copy_paste(images, objects, config, min_side)
    moved = jitter_boxes(view.objects, config.jitter)
    return View(erase_rectangles(view.images, config.random_erasing), moved, view.rows)


def _warp(images: Tensor, objects: Objects, config: ViewConfig, min_side: float) -> View:
    """Warps each image as a whole, by an affine map of its own and an elastic distortion."""
    rows = image_rows(len(images), images.device)
    linear, offset = random_views(rows, config)
    moved, kept = view_objects(objects, linear, offset, min_side)
    views = view_images(images, linear, offset, config.elastic)
    numbers = rows_of(len(objects), images.device).start + kept.nonzero()[:, 0]
    return View(vary_strokes(views, config.stroke_width), moved[kept], numbers)


def _copy_paste(images: Tensor, objects: Objects, config: ViewConfig, min_side: float) -> View:
    """Makes new scenes, in which each object has the position and size of another."""
    every, size = rows_of(len(objects), images.device), (images.shape[-2], images.shape[-1])
    rows = every.permutation()
    linear, _ = random_views(every, config)
    cut_outs, extent = cut_out(images, objects, linear, config.elastic)
    cut_outs = gather_rows(vary_strokes(cut_outs, config.stroke_width))[rows]
    growth, extent = gather_rows(linear.det().sqrt())[rows, None], gather_rows(extent)[rows]
    longer = objects.z_where[:, 2:].amax(dim=1, keepdim=True) * growth
    shape = extent / extent.amax(dim=1, keepdim=True)
    sides = (shape * longer).clamp(min=min_side, max=1)
    half = sides / 2
    center = torch.minimum(torch.maximum(objects.z_where[:, :2], half), 1 - half)
    moved = Objects(objects.image_index, objects.batch_size, torch.cat([center, sides], dim=1))
    seen = to_xyxy(grow_boxes(moved.z_where, CUT_OUT_MARGIN))
    nearness = DEPTH_RANGE * every.rand()
    opaque = torch.ones_like(cut_outs[:, :1])
    scenes, _ = composite_alpha(cut_outs, opaque, seen, nearness, objects.image_index, objects.per_image, size)
    return View(scenes, moved, rows)


def cut_out(images: Tensor, objects: Objects, linear: Tensor, elastic: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cuts out objects with a margin around their boxes, and rotates, shears and distorts each separately.

    Args:
        images: float (B, C, H, W), square.
        objects: M objects, with z_where.
        linear: float (M, 2, 2), the linear map of each object.
        elastic: see `ViewConfig`.

    Returns:
        Crops (M, C, 40, 40), whose sides are `CUT_OUT_MARGIN` times those of the new boxes; and width and height
        (M, 2) of the new boxes, relative to the image, which bound the mapped ellipses inscribed in the old boxes
        (see `view_objects`).
    """
    around = to_xyxy(grow_boxes(objects.z_where, CUT_OUT_MARGIN))
    pictures = crop_glimpses(images, around, objects.image_index, CUT_OUT_SIZE)
    sides = objects.z_where[:, 2:]
    extent = _mapped_sides(linear, sides)
    # This maps a point of the new box to one of the old box, each from -1 to 1.
    back = torch.linalg.inv(linear) * extent[:, None, :] / sides[:, :, None]
    grid = F.affine_grid(torch.cat([back, torch.zeros_like(back[:, :, :1])], dim=2), list(pictures.shape), False)
    return F.grid_sample(pictures, distort(grid, elastic, OBJECT_POINTS), align_corners=False), extent


def random_views(rows: Rows, config: ViewConfig) -> tuple[Tensor, Tensor]:
    """Samples an affine map for each of N rows, in coordinates from -1 to 1.

    Returns:
        linear (N, 2, 2) and offset (N, 2): a point p of the image is at linear · p + offset in the view.
    """

    def symmetric(extent: float) -> Tensor:
        return (2 * rows.rand() - 1) * extent

    zoom = torch.exp(symmetric(math.log(config.zoom)))
    angle, shear = symmetric(math.radians(config.rotation)), symmetric(config.shear)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(rows.count, 2, 2)
    shearing = torch.eye(2, device=rows.device).repeat(rows.count, 1, 1)
    shearing[:, 0, 1] = shear
    offset = (2 * rows.rand(2) - 1) * (zoom - 1).abs()[:, None]
    return zoom[:, None, None] * rotation @ shearing, offset


def view_images(images: Tensor, linear: Tensor, offset: Tensor, elastic: float = 0.0) -> Tensor:
    """Warps images (B, C, H, W) to views (B, C, H, W), which are black outside the images.

    Args:
        images: float (B, C, H, W).
        linear: float (B, 2, 2), see `random_views`.
        offset: float (B, 2).
        elastic: see `ViewConfig`.
    """
    inverse = torch.linalg.inv(linear)
    theta = torch.cat([inverse, -inverse @ offset[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, distort(grid, elastic, IMAGE_POINTS), align_corners=False)


def distort(grid: Tensor, elastic: float, points: int) -> Tensor:
    """Distorts a sampling grid elastically (Simard et al. 2003).

    Args:
        grid: float (N, H, W, 2), coordinates from -1 to 1.
        elastic: standard deviation of the shifts, relative to the side.
        points: random shifts along each side; they are interpolated in between.
    """
    if not elastic:
        return grid
    # Twice: coordinates go from -1 to 1, shifts are relative to the side.
    shifts = rows_of(len(grid), grid.device).randn(2, points, points) * 2 * elastic
    smooth = F.interpolate(shifts, size=grid.shape[1:3], mode="bicubic", align_corners=True)
    return grid + smooth.permute(0, 2, 3, 1)


def vary_strokes(images: Tensor, stroke_width: float) -> Tensor:
    """Mixes each image (N, C, H, W) with its dilation or its erosion, at a share of up to `stroke_width`."""
    if not stroke_width:
        return images
    share = (2 * rows_of(len(images), images.device).rand(1, 1, 1) - 1) * stroke_width
    thicker = torch.where(share > 0, 1.0, -1.0)  # Erosion is dilation of the negative.
    return torch.lerp(images, thicker * _dilate(thicker * images), share.abs())


def _dilate(images: Tensor) -> Tensor:
    """Computes the maximum of 3×3 pixels, one axis at a time: `max_pool2d` takes several times as long on CPUs."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.maximum(torch.maximum(across[..., :-2, :], across[..., 1:-1, :]), across[..., 2:, :])


def erase_rectangles(images: Tensor, patches: int) -> Tensor:
    """Covers each image (B, C, H, W) with `patches` grey rectangles of random position, size and intensity."""
    (B, _, H, W), device = images.shape, images.device
    every = image_rows(B, device)
    across = (torch.arange(W, device=device) + 0.5) / W
    down = (torch.arange(H, device=device) + 0.5) / H
    smallest, largest = PATCH_SIDES
    for _ in range(patches):
        half = (smallest + (largest - smallest) * every.rand(2, 1)) / 2
        center = every.rand(2, 1)
        columns = (across - center[:, 0]).abs() < half[:, 0]
        rows = (down - center[:, 1]).abs() < half[:, 1]
        hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
        images = torch.where(hidden, every.rand(1, 1, 1), images)
    return images


def jitter_boxes(objects: Objects, jitter: float) -> Objects:
    """Adds noise to the centres and sizes of boxes, with a standard deviation of `jitter` times their sides."""
    if not jitter:
        return objects
    errors = (rows_of(len(objects), objects.device).randn_like(objects.z_where) * jitter).clamp(
        -MAX_JITTER, MAX_JITTER
    )
    center, sides = objects.z_where[:, :2], objects.z_where[:, 2:]
    moved = torch.cat([center + errors[:, :2] * sides, sides * (1 + errors[:, 2:])], dim=1)
    return objects.replace(z_where=clip_cxcywh(moved))


def view_objects(objects: Objects, linear: Tensor, offset: Tensor, min_side: float) -> tuple[Objects, Tensor]:
    """Maps boxes into the views of their images, and selects those well inside and not too small.

    The new box bounds the ellipse inscribed in the old one. This is exact for a pure zoom, and closer to a rotated
    object's tight box than the bounding box of the rotated corners.

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
    extent = _mapped_sides(map_of, size)
    low, high = moved - extent / 2, moved + extent / 2
    visible = (high.clamp(0, 1) - low.clamp(0, 1)) / extent
    kept = (visible.prod(dim=1) > 0.9) & (extent > min_side).all(dim=1)
    return objects.replace(z_where=clip_cxcywh(torch.cat([moved, extent], dim=1))), kept


def _mapped_sides(linear: Tensor, sides: Tensor) -> Tensor:
    """Computes the sides (M, 2) of the bounds of mapped ellipses that are inscribed in boxes of `sides` (M, 2)."""
    mapped: Tensor = (linear * sides[:, None, :]).norm(dim=2)
    return mapped
