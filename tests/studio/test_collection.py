from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import NearestNeighbors

import ssdir
from object_folder import split_into_parts
from ssdir.data.samples import sample_images
from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.store.writer import ObjectWriter
from ssdir.studio.collection import CROP_SIDE, Collection, collect_images, map_objects, open_collection
from ssdir.studio.studio import default_model


def explored(z_what: NDArray[np.float32]) -> Collection:
    M = len(z_what)
    objects = Objects(torch.zeros(M).long(), 1, torch.full((M, 4), 0.5), z_what=torch.from_numpy(z_what))
    return Collection(objects, ["image"], [None], ["object"])


def test_the_nearest_are_scikit_learn_s() -> None:
    z_what = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    oracle = NearestNeighbors(n_neighbors=10, metric="cosine").fit(z_what)
    distances, neighbours = oracle.kneighbors(z_what[[7]])
    nearest_rows, cosines = explored(z_what).nearest(7, 9)
    assert nearest_rows.tolist() == neighbours[0, 1:].tolist()
    np.testing.assert_allclose(cosines, 1 - distances[0, 1:], atol=1e-5)
    assert len(explored(z_what[:3]).nearest(1)[0]) == 2


def test_a_crop_on_the_map_is_what_the_box_holds(predictor: Predictor) -> None:
    """Each object's crop has the colour of its quarter of a picture of four plain quarters, and no other."""
    image = np.zeros((128, 128, 3), np.uint8)
    image[:64, :64], image[:64, 64:], image[64:, :64], image[64:, 64:] = 40, 90, 140, 190
    D = predictor.latent_dim
    objects = Objects(
        torch.zeros(4, dtype=torch.int64),
        1,
        torch.tensor([[x, y, 0.4, 0.4] for y in (0.25, 0.75) for x in (0.25, 0.75)]),
        z_what=torch.randn(4, D, generator=torch.Generator().manual_seed(0)),
        z_depth=torch.zeros(4),
    )
    objects_map = map_objects(Collection(objects, ["quarters"], [image], ["object"]), predictor)
    assert objects_map.crops.shape == (4, CROP_SIDE, CROP_SIDE, 3)
    for row, shade in zip(objects_map.rows, objects_map.crops, strict=True):
        assert np.unique(shade).tolist() == [(40, 90, 140, 190)[row]]
    np.testing.assert_allclose(objects_map.sides, 0.4, rtol=1e-6)


def test_the_map_of_the_samples_is_in_the_unit_square_and_has_errors(predictor: Predictor) -> None:
    collection = collect_images(predictor, sample_images(3))
    objects_map = map_objects(collection, predictor)
    assert len(objects_map.rows) == len(collection.objects)
    assert float(objects_map.points.min()) == 0
    assert float(objects_map.points.max()) == pytest.approx(1)
    assert 0 < float(objects_map.errors.mean()) < 0.15


def stored(folder: Path, predictor: Predictor, names: list[str]) -> Path:
    samples = sample_images(len(names))
    path = folder / "objects.parquet"
    with ObjectWriter(path, "m", predictor.class_names, predictor.latent_dim, predictor.fingerprint) as writer:
        writer.write(predictor.encode([sample.image for sample in samples]), names, [(128, 128)] * len(names))
    return path


def test_pictures_are_found_as_named_or_beside_the_file_and_otherwise_missing(
    tmp_path: Path, predictor: Predictor
) -> None:
    (tmp_path / "photos").mkdir()
    named, beside = tmp_path / "photos" / "named.png", tmp_path / "beside.png"
    for path in (named, beside):
        Image.fromarray(sample_images(1)[0].image).save(path)
    collection = open_collection(
        stored(tmp_path, predictor, [str(named), "/gone/beside.png", "lost.png"]),
        Identity.of("tiny-mnist", predictor),
    )
    assert collection.sources == [named, beside, None]
    assert collection.num_missing == 1
    assert collection.image(2) is None
    objects_map = map_objects(collection, predictor)
    lost = (collection.objects.image_index[torch.from_numpy(objects_map.rows)] == 2).numpy()
    assert np.isnan(objects_map.errors[lost]).all()
    assert not np.isnan(objects_map.errors[~lost]).any()


def test_a_folder_of_parts_is_opened_as_its_file(tmp_path: Path, predictor: Predictor) -> None:
    names = [f"{name}.png" for name in "abcdef"]
    for name, sample in zip(names, sample_images(6), strict=True):
        Image.fromarray(sample.image).save(tmp_path / name)
    whole, identity = stored(tmp_path, predictor, names), Identity.of("tiny-mnist", predictor)
    one, parts = (
        open_collection(path, identity) for path in (whole, split_into_parts(whole, tmp_path / "objects"))
    )
    assert torch.equal(one.z_what, parts.z_what)
    assert torch.equal(one.objects.image_index, parts.objects.image_index)
    assert (one.names, one.sources, one.class_names) == (parts.names, parts.sources, parts.class_names)
    assert parts.num_missing == 0
    assert default_model(tmp_path / "objects") == "m"


def test_images_that_have_moved_are_in_the_folder_given(tmp_path: Path, predictor: Predictor) -> None:
    identity = Identity.of("tiny-mnist", predictor)
    path = stored(tmp_path, predictor, ["/gone/photos/1/a.png", "/gone/photos/2/a.png"])
    assert open_collection(path, identity).num_missing == 2
    now = [tmp_path / "moved" / number / "a.png" for number in "12"]
    for image, shade in zip(now, (10, 20), strict=True):
        image.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64), (shade,) * 3).save(image)
    moved = open_collection(path, identity, tmp_path / "moved")
    assert moved.sources == now
    samples = moved.samples(5)
    assert [(each.name, int(each.image.max())) for each in samples] == [("a.png", 10), ("a.png", 20)]
    assert len(moved.samples(1)) == 1


def test_a_file_that_has_lost_the_name_of_its_model_is_opened_with_a_note(
    tmp_path: Path, predictor: Predictor
) -> None:
    """Other tools drop the metadata, so nothing shows that the file belongs to another model of the same sizes."""
    path, identity = stored(tmp_path, predictor, ["a.png"]), Identity.of("tiny-mnist", predictor)
    assert open_collection(path, identity).note == ""
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    note = open_collection(path, identity).note
    assert "does not say which model encoded it" in note
    assert "another model than tiny-mnist" in note


def test_files_of_another_model_or_without_objects_are_refused(tmp_path: Path, predictor: Predictor) -> None:
    """Both shipped models have embeddings of the same size."""
    identity, path = Identity.of("tiny-mnist", predictor), tmp_path / "objects.parquet"
    other = ssdir.load("tiny-digits", "cpu")
    assert other.latent_dim == predictor.latent_dim
    with ObjectWriter(path, "tiny-digits", other.class_names, other.latent_dim, other.fingerprint) as writer:
        images = [sample.image for sample in sample_images(2)]
        writer.write(other.encode(images), ["a.png", "b.png"], [(128, 128)] * 2)
    with pytest.raises(InputError, match=r"\(model 'tiny-digits'\) and 'tiny-mnist' don't go together"):
        open_collection(path, identity)
    with ObjectWriter(path, "m", ["object"], predictor.latent_dim, predictor.fingerprint):
        pass
    with pytest.raises(InputError, match="holds no objects"):
        open_collection(path, identity)
