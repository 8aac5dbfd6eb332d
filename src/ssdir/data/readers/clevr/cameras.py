"""The camera of a CLEVR scene, recovered from the objects' centres in space and in the image.

CLEVR doesn't publish cameras, but `3d_coords` and `pixel_coords` (x, y, depth) of each object's centre.
The generator's camera always looks at the origin with Z up, so only its position is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import leastsq  # type: ignore[import-untyped]

FOCAL_LENGTH = 35 / 32
"""A 35 mm lens on a sensor of 32 mm: in units of the image's longer side."""

NOMINAL_POSITION = np.array([7.4811, -6.5076, 5.3437])
"""The position of the camera before its jitter: Blender's default."""

JITTER = 0.5
"""The generator moves the camera by up to this much along each axis."""

# Standard deviations: `pixel_coords` rounds x and y to whole pixels, and keeps depth in full (with less than
# 1e-4, the prior has no effect); the prior is that of a uniform jitter.
_PIXEL_ERROR = 1 / 12**0.5
_DEPTH_ERROR = 1e-4
_PRIOR_ERROR = 2 * JITTER / 12**0.5


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera that looks at the origin with Z up.

    Attributes:
        position: float (3,), in the scene's units.
        image_size: height, width in pixels.
    """

    position: NDArray[np.float64]
    image_size: tuple[int, int]

    @property
    def focal_px(self) -> float:
        """The focal length in pixels; Blender fits the sensor to the image's longer side."""
        return FOCAL_LENGTH * max(self.image_size)

    @property
    def center_px(self) -> NDArray[np.float64]:
        """The image's centre (x, y)."""
        height, width = self.image_size
        return np.array([width / 2, height / 2])

    @property
    def axes(self) -> NDArray[np.float64]:
        """The directions right, down and forward in the scene's frame, (3, 3)."""
        forward = -self.position / np.linalg.norm(self.position)
        x, y, z = forward
        right = np.array([y, -x, 0.0]) / np.hypot(x, y)
        down = np.array([z * x, z * y, -x * x - y * y]) / np.hypot(x, y)
        return np.array([right, down, forward])

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Maps points (N, 3) to (N, 3): x and y in pixels, half-open from the top left corner, and depth.

        Depth is the distance along the viewing direction, as in `pixel_coords`: smaller is nearer.
        """
        local = (points - self.position) @ self.axes.T
        depth = local[:, 2:]
        return np.concatenate([local[:, :2] / depth * self.focal_px + self.center_px, depth], axis=1)


def recover_camera(
    points: NDArray[np.float64], pixel_coords: NDArray[np.float64], image_size: tuple[int, int]
) -> Camera:
    """Estimates the most probable camera, given the objects' centres in space and in the image.

    With three or more objects, the depths alone determine it almost exactly. One or two objects constrain it less,
    and the prior on the camera's jitter decides the rest; without objects, the camera is the nominal one.

    Args:
        points: float (N, 3), `3d_coords`.
        pixel_coords: float (N, 3), x and y in pixels of an image of `image_size`, and depth.
        image_size: height, width.
    """
    errors = np.array([_PIXEL_ERROR, _PIXEL_ERROR, _DEPTH_ERROR])

    def residuals(position: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = (Camera(position, image_size).project(points) - pixel_coords) / errors
        return np.concatenate([seen.ravel(), (position - NOMINAL_POSITION) / _PRIOR_ERROR])

    position, _ = leastsq(residuals, NOMINAL_POSITION)
    return Camera(np.asarray(position, dtype=np.float64), image_size)


def largest_error_px(camera: Camera, points: NDArray[np.float64], pixel_coords: NDArray[np.float64]) -> float:
    """Returns the largest error of a projected centre in pixels: 0.5 at best, since `pixel_coords` are rounded."""
    if not len(points):
        return 0.0
    return float(np.abs(camera.project(points) - pixel_coords)[:, :2].max())
