"""CLEVR scenes for tests, which render objects by casting rays where ssdir projects outlines."""

import json

import numpy as np
from PIL import Image

from ssdir.data.readers.clevr.cameras import NOMINAL_POSITION, Camera
from ssdir.data.readers.clevr.geometry import BEVELS, Solids

SIZE = (80, 120)

OBJECTS = [
    {"shape": "cube", "size": "large", "color": "red", "material": "metal", "rotation": 200.5, "at": (1.5, -1.9)},
    {"shape": "sphere", "size": "small", "color": "cyan", "material": "rubber", "rotation": 3.0, "at": (2.4, 0.3)},
    {
        "shape": "cylinder",
        "size": "large",
        "color": "gray",
        "material": "rubber",
        "rotation": 9.5,
        "at": (-1.6, 1.2),
    },
    {
        "shape": "sphere",
        "size": "large",
        "color": "blue",
        "material": "metal",
        "rotation": 0.0,
        "at": (-0.5, -1.2),
    },
    {
        "shape": "cylinder",
        "size": "small",
        "color": "blue",
        "material": "metal",
        "rotation": 1.0,
        "at": (2.9, -2.7),
    },
]


def camera_at(jitter, size=SIZE):
    return Camera(NOMINAL_POSITION + np.array(jitter), size)


def make_scene(objects, camera, name):
    """Returns an entry of CLEVR's `scenes`, as the generator would write it."""
    entries = []
    for item in objects:
        half = {"large": 0.7, "small": 0.35}[item["size"]]
        point = np.array([*item["at"], half])
        x, y, depth = camera.project(point[None])[0]
        entry = {key: value for key, value in item.items() if key != "at"}
        entries.append(entry | {"3d_coords": point.tolist(), "pixel_coords": [round(x), round(y), depth]})
    return {"image_filename": name, "split": "val", "objects": entries, "relationships": {"left": [[1], []]}}


def solids_of(scene):
    points = np.array([item["3d_coords"] for item in scene["objects"]])
    shapes = np.array([item["shape"] for item in scene["objects"]])
    return Solids(shapes, points, points[:, 2], np.array([item["rotation"] for item in scene["objects"]]))


def distance_to(shape, rotation, points):
    """Returns the signed distance of points from a solid of unit size at the origin, by the textbook formulas."""
    radius = BEVELS[shape]
    cos, sin = np.cos(rotation), np.sin(rotation)
    x, y, z = np.moveaxis(points, -1, 0)
    if shape == "sphere":
        return np.sqrt(x**2 + y**2 + z**2) - 1
    if shape == "cube":
        sides = np.stack([np.abs(cos * x + sin * y), np.abs(cos * y - sin * x), np.abs(z)], -1) - (1 - radius)
    else:
        sides = np.stack([np.hypot(x, y), np.abs(z)], -1) - (1 - radius)
    return np.linalg.norm(np.maximum(sides, 0), axis=-1) + np.minimum(sides.max(-1), 0) - radius


def render_masks(camera, solids):
    """Renders masks by casting a ray through each pixel.

    Returns:
        bool (M, H, W): the pixels whose rays hit each solid alone.
        uint8 (H, W): one more than the index of the nearest solid that a pixel's ray hits, or 0.
    """
    height, width = camera.image_size
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    seen = (np.stack([columns, rows], -1) - camera.center_px) / camera.focal_px
    rays = np.concatenate([seen, np.ones((height, width, 1))], -1) @ camera.axes
    hits, depths = [], []
    for shape, center, half, rotation in zip(
        solids.shapes, solids.centers, solids.half_sizes, solids.rotations, strict=True
    ):
        middle = float((center - camera.position) @ camera.axes[2])
        depth = np.full((height, width), np.inf)
        for t in np.linspace(middle + 1.8 * half, middle - 1.8 * half, 200):
            points = (camera.position + t * rays - center) / half
            depth[distance_to(shape, rotation, points) < 0] = t
        hits.append(np.isfinite(depth))
        depths.append(depth)
    nearest = np.argmin(depths, axis=0) + 1
    return np.array(hits), np.where(np.any(hits, axis=0), nearest, 0).astype(np.uint8)


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def write_clevr(root, scenes, split="val", masks=None, size=SIZE):
    for name in ("scenes", f"images/{split}"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        Image.new("RGBA", size[::-1]).save(root / "images" / split / scene["image_filename"])
    content = {"info": {"split": split, "version": "1.0"}, "scenes": scenes}
    (root / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps(content, indent=1))
    if masks is not None:
        (root / "masks" / split).mkdir(parents=True)
        for scene, mask in zip(scenes, masks, strict=True):
            Image.fromarray(mask).save(root / "masks" / split / scene["image_filename"])
    return root
