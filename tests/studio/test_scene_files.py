import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssdir.data.samples import sample_images
from ssdir.identity import Identity
from ssdir.inference.predictor import Predictor
from ssdir.store.objects_file import read_info, read_objects
from ssdir.studio import scene_editor
from ssdir.studio.images import encode_image
from ssdir.studio.scene_files import SCALE, scene_json, scene_parquet, scene_png


def test_an_edited_scene_comes_back_from_parquet_and_json(tmp_path: Path, predictor: Predictor) -> None:
    objects = encode_image(predictor, sample_images(1)[0]).objects
    edited = scene_editor.duplicate(scene_editor.remove(objects, 0), 1)
    (tmp_path / "scene.parquet").write_bytes(
        scene_parquet(edited, "photo.jpg", (200, 300), Identity.of("tiny-mnist", predictor))
    )
    back, images = read_objects(tmp_path / "scene.parquet")
    assert images == ["photo.jpg"]
    assert read_info(tmp_path / "scene.parquet").model == "tiny-mnist"
    for name, values in edited._tensors().items():
        assert torch.equal(getattr(back, name), values), name
    scene = json.loads(scene_json(edited, "photo.jpg", (200, 300), predictor.class_names))
    assert [entry["class"] for entry in scene["objects"]] == ["object"] * len(edited)
    np.testing.assert_allclose(
        [entry["box"] for entry in scene["objects"]], edited.boxes_px((200, 300)), rtol=1e-6
    )
    np.testing.assert_allclose([entry["z_what"] for entry in scene["objects"]], edited.z_what, rtol=1e-6)
    assert {"score", "z_depth", "z_where", "z_what_scale"} <= scene["objects"][0].keys()


def test_the_png_is_the_enlarged_reconstruction(predictor: Predictor) -> None:
    objects = encode_image(predictor, sample_images(1)[0]).objects
    picture = np.array(Image.open(io.BytesIO(scene_png(predictor.decode(objects)))))
    reconstruction = predictor.decode(objects).reconstructions[0].permute(1, 2, 0).numpy()
    assert picture.shape == (128 * SCALE, 128 * SCALE, 3)
    assert np.abs(picture[::SCALE, ::SCALE] / 255 - reconstruction).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(picture[::SCALE], picture[SCALE - 1 :: SCALE])


def test_an_emptied_scene_is_a_file_too(tmp_path: Path, predictor: Predictor) -> None:
    empty = encode_image(predictor, sample_images(1)[0]).objects[:0]
    (tmp_path / "scene.parquet").write_bytes(
        scene_parquet(empty, "photo.jpg", (200, 300), Identity.of("tiny-mnist", predictor))
    )
    assert len(read_objects(tmp_path / "scene.parquet")[0]) == 0
    assert json.loads(scene_json(empty, "photo.jpg", (200, 300), ["object"]))["objects"] == []
    assert not np.array(Image.open(io.BytesIO(scene_png(predictor.decode(empty))))).any()
