"""CLEVR geometry: the boxes and silhouettes of CLEVR's objects in the image of a camera.

Every object is a convex solid, swept by a ball: a cube or a vertical cylinder with rounded edges, or a sphere. The
farthest point of such a solid in any direction is known in closed form, and gives the silhouette.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssdir.data.readers.clevr.cameras import Camera

BEVELS = {"cube": 0.19, "sphere": 1.0, "cylinder": 0.055}
"""Radius of the rounded edges, as a share of the half-size; measured, see docs/clevr.md."""

# Newton steps: the error is under 1e-3 pixels after 2, and at float64's resolution after 4.
_STEPS = 4


@dataclass(frozen=True, eq=False)
class Solids:
    """The objects of a scene.

    Attributes:
        shapes: str (M,), keys of `BEVELS`.
        centers: float (M, 3).
        half_sizes: float (M,), half of the height; cubes and cylinders are as wide as high.
        rotations: float (M,), about the vertical axis, in radians.
    """

    shapes: NDArray[np.str_]
    centers: NDArray[np.float64]
    half_sizes: NDArray[np.float64]
    rotations: NDArray[np.float64]

    def farthest(self, directions: NDArray[np.float64], bevels: dict[str, float]) -> NDArray[np.float64]:
        """Returns each solid's farthest points in directions (M, K, 3), from its centre: (M, K, 3)."""
        bevel = np.array([bevels[str(shape)] for shape in self.shapes])[:, None, None]
        cos, sin = np.cos(self.rotations), np.sin(self.rotations)
        turn = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], axis=1)
        flat = directions[..., :2]
        corner = np.sign(flat @ turn.swapaxes(1, 2)) @ turn
        rim = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
        side = np.where((self.shapes == "cube")[:, None, None], corner, rim)
        core = np.concatenate([side, np.sign(directions[..., 2:])], axis=-1)
        ball = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        return np.asarray(self.half_sizes[:, None, None] * ((1 - bevel) * core + bevel * ball))


def silhouettes(
    camera: Camera, solids: Solids, num_points: int, bevels: dict[str, float] | None = None
) -> NDArray[np.float64]:
    """Returns the silhouettes' farthest points in K = `num_points` image directions: (M, K, 2), in pixels.

    Points are not clipped to the image.
    Directions start at the right and turn downwards. For a direction u of the image, the points with u · xy ≤ t
    lie on one side of a plane through the camera. The plane is tilted until it touches the solid: project the
    solid's farthest point along the plane's normal, put the plane through it, repeat. Each step moves the plane
    outwards, and its limit is the tangent plane.
    """
    axes = camera.axes
    angles = np.arange(num_points) * (2 * np.pi / num_points)
    u = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centers = ((solids.centers - camera.position) @ axes.T)[:, None]
    seen = np.broadcast_to(centers[..., :2] / centers[..., 2:], (len(solids.centers), num_points, 2))
    for _ in range(_STEPS):
        t = (seen * u).sum(axis=-1, keepdims=True)
        normals = u @ axes[:2] - t * axes[2]
        points = centers + solids.farthest(normals, bevels or BEVELS) @ axes.T
        seen = points[..., :2] / points[..., 2:]
    return np.asarray(seen * camera.focal_px + camera.center_px)


def project_boxes(camera: Camera, solids: Solids, bevels: dict[str, float] | None = None) -> NDArray[np.float64]:
    """Returns tight boxes (M, 4) of whole objects, hidden parts included: xyxy in pixels, clipped to the image."""
    right, bottom, left, top = silhouettes(camera, solids, 4, bevels).swapaxes(0, 1)
    boxes = np.stack([left[:, 0], top[:, 1], right[:, 0], bottom[:, 1]], axis=1)
    height, width = camera.image_size
    return np.asarray(np.clip(boxes, 0, [width, height, width, height]))


def cover_pixels(boxes_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the boxes of the pixels whose centres are in `boxes_px`: half-open, as a mask's box is."""
    return np.asarray(np.ceil(boxes_px - 0.5))


def silhouette_areas(camera: Camera, solids: Solids, num_points: int = 128) -> NDArray[np.float64]:
    """Returns the number of pixels (M,) that each whole object covers in the image, hidden parts included."""
    height, width = camera.image_size
    x, y = np.moveaxis(np.clip(silhouettes(camera, solids, num_points), 0, [width, height]), -1, 0)
    return np.asarray((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1) / 2)
