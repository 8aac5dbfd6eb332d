"""Tests of classifiers, clusters and outliers on embeddings with known results, and of their commands."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import command_line
from command_line import run
from object_folder import split_into_parts
from ssdir.analysis.classifier import Classifier, cross_validate, fit_file, predict_file, read_labels
from ssdir.analysis.clusters import cluster_embeddings, cluster_file
from ssdir.analysis.outliers import SIDE, knn_distances, outlier_scores, reconstruction_errors
from ssdir.analysis.output import AnalysisOutput
from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.inference.predictor import Predictor
from ssdir.models.detected.mixture import MixturePriorConfig
from ssdir.models.io import load_model, save_model
from ssdir.models.registry import build_model
from ssdir.models.ssdir import SSDIR
from ssdir.object_arrays import ObjectArrays
from ssdir.object_table import ANALYSIS_COLUMNS, COLUMNS
from ssdir.ops.glimpses import crop_glimpses
from ssdir.store.objects_file import read_info, read_objects
from ssdir.store.writer import ObjectWriter
from ssdir.training.recipe import read_recipe

from .track_files import write_tracks

DIM, COUNT = 6, 90


def clouds(count: int = COUNT, groups: int = 3, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns embeddings around a few directions, and the index of each one's direction."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, groups, count)
    z_what = 5 * np.eye(groups, DIM)[labels] + rng.normal(size=(count, DIM))
    return z_what.astype(np.float32), labels


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Writes a file of objects in ten pictures; the class of each object is its group."""
    z_what, labels = clouds()
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path in paths:
        Image.new("RGB", (50, 40), (200, 30, 60)).save(path)
    objects = ObjectArrays(
        image_index=np.sort(np.random.default_rng(1).integers(0, 10, COUNT)),
        batch_size=10,
        z_where=np.full((COUNT, 4), 0.4, dtype=np.float32),
        scores=np.full(COUNT, 0.9, dtype=np.float32),
        labels=labels,
        z_what=z_what,
        z_what_scale=None,
        z_depth=None,
        anchor_index=np.arange(COUNT),
    )
    with ObjectWriter(tmp_path / "objects.parquet", "no-model", ["ant", "bee", "cow"], DIM, "weights") as writer:
        writer.write(objects, paths, [(40, 50)] * 10)
    return tmp_path / "objects.parquet"


def ok(*arguments: object) -> str:
    return command_line.ok(*arguments).output


@pytest.mark.parametrize("groups", [2, 3])
def test_classifier_predicts_as_scikit_learn_does(groups: int, tmp_path: Path) -> None:
    z_what, labels = clouds(groups=groups)
    names = [f"class {label}" for label in labels]
    Classifier.fit(z_what, names, "weights").save(tmp_path / "classifier.json")
    predicted, chances = Classifier.load(tmp_path / "classifier.json").predict(z_what)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(z_what.astype(float), names)
    assert predicted == probe.predict(z_what).tolist()
    np.testing.assert_allclose(chances, probe.predict_proba(z_what).max(axis=1), rtol=1e-3)


def test_held_out_objects_distinguish_embeddings_from_noise() -> None:
    z_what, labels = clouds(300)
    names = [str(label) for label in labels]
    trial = cross_validate(z_what, names)
    assert trial.accuracy is not None
    assert trial.accuracy > 0.97
    noise = cross_validate(np.random.default_rng(0).normal(size=(300, DIM)), names)
    assert noise.accuracy is not None
    assert abs(noise.accuracy - noise.floor) < 0.15, "nothing can be learned from noise, and nothing leaks"
    assert trial.floor == max(np.bincount(labels)) / 300
    assert cross_validate(z_what[:3], ["a", "a", "b"]).accuracy is None


def test_views_of_one_track_are_held_out_together(tmp_path: Path) -> None:
    """Labels that are random for each track can't be predicted for tracks that were not learned from."""
    num_tracks, views = 30, 6
    rng = np.random.default_rng(0)
    track = np.tile(np.arange(1, num_tracks + 1), views)
    z_what = rng.normal(size=(num_tracks, 32))[track - 1] + 0.05 * rng.normal(size=(num_tracks * views, 32))
    frame, ones = np.repeat(np.arange(views), num_tracks), np.ones(num_tracks * views)
    path = write_tracks(tmp_path / "t.parquet", z_what, track, frame, 0.9 * ones, ones)
    names = rng.permutation(["a", "b"] * (num_tracks // 2))[track - 1]
    csv_of_labels = tmp_path / "labels.csv"
    csv_of_labels.write_text("row,label\n" + "".join(f"{row},{name}\n" for row, name in enumerate(names)))
    trial = fit_file(path, tmp_path / "c.json", labels=csv_of_labels, per_view=True)
    assert trial.accuracy is not None
    assert trial.accuracy < 0.75
    lone = cross_validate(z_what, names.tolist(), track_id=np.zeros_like(track))
    assert lone.accuracy is not None
    assert lone.accuracy > 0.9, "objects of no track are held out one by one"
    one_track_each = np.where(names == "a", 1, 2)
    assert cross_validate(z_what, names.tolist(), track_id=one_track_each).accuracy is None
    mixed = cross_validate(z_what[:4], ["a", "b", "a", "b"], track_id=np.array([1, 1, 2, 3]))
    assert mixed.spread is not None, "folds that leave one class to learn from are passed over"


def test_clusters_are_found_and_counted() -> None:
    z_what, labels = clouds(400, groups=4)
    clusters = cluster_embeddings(z_what)
    assert clusters.count == 4
    assert np.bincount(clusters.labels).tolist() == sorted(np.bincount(labels).tolist(), reverse=True)
    pairs = {(a, b) for a, b in zip(clusters.labels.tolist(), labels.tolist(), strict=True)}
    assert len(pairs) == 4, "each cluster is one cloud"
    lengths = np.random.default_rng(0).uniform(0.1, 9, (400, 1))
    assert cluster_embeddings(z_what * lengths).count == 4, "length does not matter"
    assert cluster_embeddings(z_what, 7).count == 7
    assert cluster_embeddings(z_what[:2]).count == 1


def test_an_object_apart_has_the_largest_knn_distance() -> None:
    z_what, _ = clouds(200)
    z_what[17] = -5 * np.ones(DIM)
    distance = knn_distances(z_what)
    assert distance.argmax() == 17
    similarity = z_what @ z_what.T / np.linalg.norm(z_what, axis=1) / np.linalg.norm(z_what, axis=1)[:, None]
    np.fill_diagonal(similarity, -2)
    expected = 1 - np.sort(similarity, axis=1)[:, ::-1][:, :10].mean(axis=1)
    np.testing.assert_allclose(distance, expected, atol=1e-5)
    np.testing.assert_allclose(outlier_scores(np.array([1.0, 5, 2]), np.array([0.1, 0.3, 0.9])), [0, 0.75, 0.75])


def test_fit_and_predict_from_a_few_labels(stored: Path, tmp_path: Path) -> None:
    truth = pq.read_table(stored)["class"].to_pylist()
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label"])
        writer.writerows((row, truth[row]) for row in range(0, COUNT, 4))
    text = ok("classify", "fit", stored, "--labels", labels, "--out", tmp_path / "classifier.json")
    assert "accuracy on held-out objects" in text
    assert "next: ssdir classify predict" in text
    out, grid = tmp_path / "predicted.parquet", tmp_path / "predicted.png"
    ok("classify", "predict", tmp_path / "classifier.json", stored, "--out", out, "--image-grid", grid)
    table = pq.read_table(out)
    assert {*table.column_names} <= COLUMNS | ANALYSIS_COLUMNS
    right = [a == b for a, b in zip(table["predicted"].to_pylist(), truth, strict=True)]
    assert np.mean(right) > 0.95
    assert table["row"].to_pylist() == list(range(COUNT))
    assert read_objects(stored)[0].z_what is not None
    assert Image.open(grid).width > 500
    by_column = tmp_path / "by-column.json"
    trial = json.loads(ok("classify", "fit", out, "--column", "predicted", "--out", by_column, "--json"))
    assert sum(trial["counts"].values()) == COUNT


def test_clusters_and_outliers_are_written_with_an_image_grid(stored: Path, tmp_path: Path) -> None:
    counts = json.loads(
        ok("cluster", stored, "--out", tmp_path / "c.csv", "--image-grid", tmp_path / "c.png", "--json")
    )
    assert len(counts) == 3
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT == sum(counts.values())
    assert Image.open(tmp_path / "c.png").height > 300
    result = run("outliers", stored, "--out", tmp_path / "o.json", "--image-grid", tmp_path / "o.png")
    assert result.exit_code == 0
    assert "ranked by the embeddings alone: " in result.stderr
    ranked = json.loads((tmp_path / "o.json").read_text())
    assert {"row", "outlier_score", "knn_distance", "image"} <= ranked[0].keys()
    assert "z_what" not in ranked[0]


def test_image_grids_begin_with_the_most_typical_objects(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def note(self: AnalysisOutput, stored: object, added: Any, grid_rows: Any, caption: object) -> None:
        shown.append((dict(added), dict(grid_rows)))

    monkeypatch.setattr(AnalysisOutput, "write", note)
    output = AnalysisOutput(tmp_path / "out.parquet")
    cluster_file(stored, output, 3)
    predict_file(classifier_file(tmp_path / "c.json"), stored, output)
    (clusters, members), (classes, predicted) = shown
    for values, rows in ((clusters["distance_to_center"], members), (-classes["probability"], predicted)):
        assert len(rows) > 1
        assert all(len(each) > 1 and (np.diff(values[each]) >= 0).all() for each in rows.values())


def with_mixture_prior(plain: Path, seed: int) -> SSDIR:
    """Returns the model of a folder with an untrained mixture prior."""
    model = load_model(plain)
    assert isinstance(model, SSDIR)
    prior = MixturePriorConfig(kind="mixture", components=3, heads=2)
    with seeded(seed):
        mixed = SSDIR(model.config.model_copy(update={"prior": prior}), model.class_names)
    mixed.load_state_dict(model.state_dict(), strict=False)
    return mixed


def test_clusters_by_a_mixture_prior_are_those_of_the_model(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    model = with_mixture_prior(tiny_model_dir, seed=0)
    save_model(model, tmp_path / "model")
    objects, out = tmp_path / "objects.parquet", tmp_path / "clusters.parquet"
    ok("encode", tmp_path / "model", tmp_path / "a.png", "--out", objects, "--score-threshold", 0.7)
    counts = json.loads(ok("cluster", objects, "--mixture", "--out", out, "--json"))
    table = pq.read_table(out).to_pandas()
    assert {*table.columns} <= COLUMNS | ANALYSIS_COLUMNS
    z_what = read_objects(objects)[0].z_what
    assert z_what is not None
    probs = model.eval().cluster_probs(z_what).double().numpy()
    assert table["cluster"].tolist() == probs.argmax(axis=1).tolist()
    np.testing.assert_allclose(table["cluster_prob"], probs.max(axis=1), rtol=1e-5)
    assert list(counts.values()) == [int((table["cluster"] == each).sum()) for each in range(3)]

    plain_objects = tmp_path / "plain.parquet"
    ok("encode", tiny_model_dir, tmp_path / "a.png", "--out", plain_objects, "--score-threshold", 0.7)
    for arguments, message in (
        ((objects, "-k", 3), "has its own number of clusters"),
        ((plain_objects,), "has no mixture prior"),
        ((plain_objects, "--model", tmp_path / "model"), "embeddings of different models"),
    ):
        result = run("cluster", *arguments, "--mixture", "--out", tmp_path / "refused.csv")
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
        assert not (tmp_path / "refused.csv").exists()


def test_a_mixture_prior_that_was_trained_again_is_refused(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    save_model(with_mixture_prior(tiny_model_dir, seed=0), tmp_path / "model")
    objects, out = tmp_path / "objects.parquet", tmp_path / "clusters.csv"
    ok("encode", tmp_path / "model", tmp_path / "a.png", "--out", objects, "--score-threshold", 0.7)
    shutil.rmtree(tmp_path / "model")
    save_model(with_mixture_prior(tiny_model_dir, seed=1), tmp_path / "model")
    result = run("cluster", objects, "--mixture", "--out", out)
    assert result.exit_code == 2
    assert "embeddings of different models" in " ".join(result.stderr.split())
    assert not out.exists()


def test_outliers_have_reconstruction_errors(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    objects = tmp_path / "objects.parquet"
    ok("encode", tiny_model_dir, tmp_path / "a.png", "--out", objects, "--score-threshold", 0.7)
    ok("outliers", objects, "--out", tmp_path / "outliers.csv", "--image-grid", tmp_path / "outliers.png")
    with (tmp_path / "outliers.csv").open() as file:
        errors = [float(row["reconstruction_error"]) for row in csv.DictReader(file)]
    assert all(0 < error < 1 for error in errors)
    printed = json.loads(ok("outliers", objects, "--out", tmp_path / "again.csv", "--json"))
    with (tmp_path / "again.csv").open() as file:
        written = {int(row["row"]): row for row in csv.DictReader(file)}
    assert written[0].keys() <= COLUMNS | ANALYSIS_COLUMNS
    for row in printed:
        assert row["reconstruction_error"] == pytest.approx(
            float(written[row["row"]]["reconstruction_error"]), rel=1e-4
        )
        assert row["image"] == str(tmp_path / "a.png")
    scores = [row["outlier_score"] for row in printed]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("preset", ["space-64", "slots-32"])
def test_reconstruction_errors_are_over_the_background_that_a_model_infers(preset: str, tmp_path: Path) -> None:
    with seeded(0):
        predictor = Predictor(build_model(read_recipe(preset).model, ["object"]))
    file, side = tmp_path / "a.png", predictor.image_size
    image = np.full((side, side, 3), 128, dtype=np.uint8)
    image[side // 4 : side // 2, side // 4 : side // 2] = (200, 30, 60)
    Image.fromarray(image).save(file)
    objects = predictor.encode(file, score_threshold=0)
    assert len(objects)
    squares = (predictor.reconstruct(file, objects).reconstructions - predictor.prepare(file)) ** 2
    expected = crop_glimpses(squares, objects.boxes, objects.image_index, SIDE).mean(dim=(1, 2, 3))
    errors = reconstruction_errors(predictor, objects, [file], np.array([[side, side]]))
    np.testing.assert_allclose(errors, expected.numpy(), rtol=1e-4)


def test_another_picture_of_the_same_name_is_not_measured(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).save(tmp_path / "a" / "0.png")
    objects, out = tmp_path / "objects.parquet", tmp_path / "outliers.csv"
    ok("encode", tiny_model_dir, tmp_path / "a" / "0.png", "--out", objects, "--score-threshold", 0.7)
    (tmp_path / "a" / "0.png").rename(tmp_path / "0.png")
    ok("outliers", objects, "--out", out)
    assert "reconstruction_error" in out.read_text()
    Image.fromarray(picture[:-1]).save(tmp_path / "0.png")
    result = run("outliers", objects, "--out", out, "--force")
    assert result.exit_code == 0
    assert "ranked by the embeddings alone: " in result.stderr
    assert "but the image that was encoded had" in result.stderr.replace("\n", " ")
    assert "reconstruction_error" not in out.read_text()


def test_what_cannot_be_done_is_reported_in_one_sentence(stored: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("row,label\n0,a\n500,b\n")
    out = tmp_path / "out.json"
    cases = {
        "give the labels": ("classify", "fit", stored, "--out", out),
        "labels row 500, there are rows 0 ... 89": ("classify", "fit", stored, "--labels", bad, "--out", out),
        "has no column 'clas'; did you mean 'class'?": (
            "classify",
            "fit",
            stored,
            "--column",
            "clas",
            "--out",
            out,
        ),
        "all labelled objects are": ("classify", "fit", stored, "--column", "score", "--out", out),
        "is not a classifier": ("classify", "predict", bad, stored, "--out", out),
        "must end in one of": ("cluster", stored, "--out", tmp_path / "out.txt"),
        "grid.jpg' must end in .png": ("cluster", stored, "--out", out, "--image-grid", tmp_path / "grid.jpg"),
        "can't make 500 clusters": ("cluster", stored, "--out", out, "-k", 500),
        "does not exist": ("outliers", tmp_path / "none.parquet", "--out", out),
    }
    for sentence, command in cases.items():
        result = run(*command)
        assert result.exit_code == 2, (sentence, result.output)
        assert sentence in result.stderr.replace("\n", " ")
    assert not out.exists()
    for content, sentence in (
        ("row;label\n1;a\n", "has no column 'row': it has 'row;label'"),
        ("row,lable\n1,a\n", "has no column 'label': it has 'row, lable'"),
        ("row,label\n1,a\n1,b\n", "row 1 twice"),
        ("track_id,label\n7,a\n9,b\n7,a\n", "track 7 twice"),
        ("", "has no column 'row'"),
    ):
        bad.write_text(content)
        with pytest.raises(InputError, match=sentence):
            read_labels(bad, 2, np.array([7, 9]))


def test_labels_as_other_programs_write_them(tmp_path: Path) -> None:
    """pandas writes whole numbers as floats where others of the column are missing."""
    (tmp_path / "labels.csv").write_text("row, label, note\n3.0, a,\n 1., b\n2\n")
    rows, labels = read_labels(tmp_path / "labels.csv", 10)
    assert (rows.tolist(), labels) == ([3, 1], ["a", "b"])


def test_progress_counts_up_to_all_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z_what, _ = clouds()
    whole = knn_distances(z_what)
    reports: list[tuple[int, int]] = []

    def note(done: int, total: int, stage: str | None = None) -> None:
        reports.append((done, total))

    monkeypatch.setattr("ssdir.analysis.outliers.AT_ONCE", 40)
    np.testing.assert_allclose(knn_distances(z_what, on_progress=note), whole, atol=1e-12)
    assert reports == [(40, COUNT), (80, COUNT), (COUNT, COUNT)]
    reports.clear()
    cluster_embeddings(z_what, on_progress=note)
    assert [done for done, _ in reports] == list(range(17))
    assert {total for _, total in reports} == {16}


def classifier_file(path: Path, **changes: object) -> Path:
    """Writes a classifier that separates two classes by the first number of the embedding."""
    weights = np.zeros((2, DIM))
    weights[:, 0] = [-1, 1]
    values = {
        "format": 1,
        "classes": ["low", "high"],
        "fingerprint": "weights",
        "mean": [0.0] * DIM,
        "scale": [1.0] * DIM,
        "weights": weights.tolist(),
        "bias": [0.0, 0.0],
        **changes,
    }
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return path


def test_a_classifier_made_by_hand_predicts(tmp_path: Path) -> None:
    z_what = np.zeros((3, DIM))
    z_what[:, 0] = [-2, 0, 2]
    predicted, chances = Classifier.load(classifier_file(tmp_path / "c.json")).predict(z_what)
    assert [predicted[0], predicted[2]] == ["low", "high"]
    # Logits are -2 and 2, and even at 0.
    np.testing.assert_allclose(chances, [1 / (1 + np.exp(-4)), 0.5, 1 / (1 + np.exp(-4))])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "is of another ssdir"),
        ({"format": None}, "'format' is missing"),
        ({"classes": ["low"]}, "'classes' must (be|have) "),
        ({"classes": ["low", "low"]}, "classes has a name twice"),
        ({"classes": "low"}, "'classes' must (be|have) "),
        ({"fingerprint": ""}, "'fingerprint' must (be|have) "),
        ({"mean": []}, "'mean' must (be|have) "),
        ({"mean": [float("nan")] * DIM}, "'mean.0' must (be|have) "),
        ({"mean": ["0"] * DIM}, "'mean.0' must (be|have) "),
        ({"scale": [0.0] * DIM}, "'scale.0' must (be|have) "),
        ({"scale": [1.0]}, "scale must have 6 numbers like mean, got 1"),
        ({"weights": [[1.0] * DIM]}, "weights must have 2 rows of 6 numbers"),
        ({"weights": [[1.0] * DIM, [1.0]]}, "weights must have 2 rows of 6 numbers"),
        ({"weights": [1.0, 2.0]}, "'weights.0' must (be|have) "),
        ({"bias": [float("inf"), 0]}, "'bias.0' must (be|have) "),
        ({"bias": [1.0]}, "bias must have 2 numbers, one for each class, got 1"),
    ],
)
def test_a_classifier_of_wrong_shape_is_one_sentence(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        Classifier.load(classifier_file(tmp_path / "c.json", **changes))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "[" * 99_999, '"a"', "\udcff"])
def test_what_is_no_classifier_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="is not a classifier of ssdir classify fit"):
        Classifier.load(tmp_path / "c.json")


def test_embeddings_of_other_weights_are_refused(stored: Path, tmp_path: Path) -> None:
    other = classifier_file(tmp_path / "c.json", fingerprint="others")
    result = run("classify", "predict", other, stored, "--out", tmp_path / "p.csv")
    assert result.exit_code == 2
    assert "c.json' don't go together: embeddings of different models" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("row", ["1e3", "0.5", "-1", "9" * 30, "9" * 5000, "x", ""])
def test_labels_of_rows_that_are_not_there(tmp_path: Path, row: str) -> None:
    (tmp_path / "labels.csv").write_text(f"row,label\n0,a\n{row},b\n")
    with pytest.raises(InputError, match=r"labels row -1|line 3 .* has the row .*, not a whole") as error:
        read_labels(tmp_path / "labels.csv", 10)
    assert len(str(error.value)) < 300


def test_a_label_that_is_missing_is_no_label(stored: Path, tmp_path: Path) -> None:
    """A column of numbers in pandas has NaN where there is none."""
    frame = pandas.read_parquet(stored)
    frame["mine"] = [float(row % 2) if row < 10 else float("nan") for row in range(COUNT)]
    frame.to_parquet(tmp_path / "labelled.parquet")
    out = tmp_path / "c.json"
    trial = json.loads(
        ok("classify", "fit", tmp_path / "labelled.parquet", "--column", "mine", "--out", out, "--json")
    )
    assert trial["counts"] == {"0.0": 5, "1.0": 5}


def test_rows_that_pandas_selected_go_through_every_command(stored: Path, tmp_path: Path) -> None:
    frame = pandas.read_parquet(stored)
    kept = frame[frame["label"] < 2].sort_values("image", ascending=False)
    selected = tmp_path / "selected.parquet"
    kept.to_parquet(selected)
    assert 10 < len(kept) < COUNT
    counts = json.loads(ok("cluster", selected, "--out", tmp_path / "c.parquet", "--json", "-k", 2))
    assert sum(counts.values()) == len(kept)
    # What a command has written keeps the model, too, and no numbers of rows of pandas.
    again = pq.read_table(tmp_path / "c.parquet")
    assert {*again.column_names} <= COLUMNS | ANALYSIS_COLUMNS
    assert again["class"].to_pylist() == kept["class"].tolist()
    ok("outliers", tmp_path / "c.parquet", "--out", tmp_path / "o.csv", "--embeddings-only")
    ok("index", tmp_path / "c.parquet", "--out", tmp_path / "index")
    assert json.loads(ok("search", tmp_path / "index", "--row", 0, "--json"))


@pytest.mark.parametrize("command", ["cluster", "outliers", "classify"])
def test_a_folder_of_parts_gives_what_its_file_gives(stored: Path, tmp_path: Path, command: str) -> None:
    outs = []
    for objects in (stored, split_into_parts(stored, tmp_path / "objects")):
        folder = tmp_path / f"of-{objects.stem}-{objects.suffix}"
        out, grid, classifier = folder / "out.parquet", folder / "out.png", folder / "classifier.json"
        arguments = [objects, "--out", out, "--image-grid", grid]
        if command == "classify":
            ok("classify", "fit", objects, "--column", "class", "--out", classifier)
            ok("classify", "predict", classifier, *arguments)
            outs.append((out.read_bytes(), grid.read_bytes(), classifier.read_bytes()))
        else:
            ok(command, *arguments, *(["--embeddings-only"] if command == "outliers" else []))
            outs.append((out.read_bytes(), grid.read_bytes(), b""))
    assert outs[0] == outs[1]


def test_outliers_of_a_folder_have_reconstruction_errors(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    for number, name in enumerate("abc"):
        Image.fromarray(np.roll(picture, 20 * number, axis=1)).save(tmp_path / f"{name}.png")
    whole = tmp_path / "objects.parquet"
    ok("encode", tiny_model_dir, *(tmp_path / f"{name}.png" for name in "abc"), "--out", whole)
    folder = split_into_parts(whole, tmp_path / "objects")
    for objects, out in ((whole, "whole.csv"), (folder, "folder.csv")):
        ok("outliers", objects, "--out", tmp_path / out)
    assert "reconstruction_error" in (tmp_path / "folder.csv").read_text()
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "folder.csv").read_bytes()


def test_reconstruction_errors_stay_with_their_rows(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    """In another order of the rows, each object has the error that it had."""
    for name, pixels in (("a", picture), ("b", picture[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    objects, shuffled = tmp_path / "objects.parquet", tmp_path / "shuffled.parquet"
    ok(
        "encode",
        tiny_model_dir,
        tmp_path / "a.png",
        tmp_path / "b.png",
        "--out",
        objects,
        "--score-threshold",
        0.7,
    )
    frame = pandas.read_parquet(objects)
    order = np.random.default_rng(0).permutation(len(frame))
    frame.iloc[order].to_parquet(shuffled)
    errors = []
    for path in (objects, shuffled):
        ok("outliers", path, "--out", path.with_suffix(".csv"))
        errors.append(pandas.read_csv(path.with_suffix(".csv"))["reconstruction_error"].to_numpy())
    assert len(errors[0]) > 5
    assert len(np.unique(errors[0])) > 5
    np.testing.assert_allclose(errors[1], errors[0][order], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_text_has_no_bytes_of_further_columns(stored: Path, tmp_path: Path, suffix: str) -> None:
    table = pq.read_table(stored)
    further = {
        "thumbnail": pa.array([b"\xff\x00"] * COUNT),
        "kind": pa.array([b"\xff"] * COUNT).dictionary_encode(),
        "camera": pa.array(["left"] * COUNT).dictionary_encode(),
        "outline": pa.array([[1.0]] * COUNT),
    }
    for name, column in further.items():
        table = table.append_column(name, column)
    pq.write_table(table, stored)
    out = tmp_path / f"outliers{suffix}"
    ok("outliers", stored, "--out", out, "--embeddings-only")
    read = {".csv": pandas.read_csv, ".json": pandas.read_json, ".parquet": pandas.read_parquet}[suffix](out)
    assert {*read.columns} & {*further} == ({*further} if suffix == ".parquet" else {"camera"})
    assert {*read["camera"]} == {"left"}


def test_json_keeps_the_values_of_further_columns(stored: Path, tmp_path: Path) -> None:
    table = pq.read_table(stored)
    further = {"id": 2**60 + 1, "when": datetime(2024, 1, 2), "share": 1e-12, "right": True}
    for name, value in further.items():
        table = table.append_column(name, pa.array([value, None] * COUNT).slice(0, COUNT))
    pq.write_table(table, stored)
    out = tmp_path / "outliers.json"
    ok("outliers", stored, "--out", out, "--embeddings-only")
    first, second = json.loads(out.read_text())[:2]
    first["when"] = datetime.fromisoformat(first["when"])
    assert {name: first[name] for name in further} == further
    assert [second[name] for name in further] == [None] * len(further)


def test_a_lost_model_is_named_on_the_command_line(
    tiny_model_dir: Path, agnostic_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    """DuckDB writes no metadata, so the file no longer names its model."""
    Image.fromarray(picture).save(tmp_path / "a.png")
    objects, lost = tmp_path / "objects.parquet", tmp_path / "lost.parquet"
    ok("encode", tiny_model_dir, tmp_path / "a.png", "--out", objects, "--score-threshold", 0.7)
    pq.write_table(pq.read_table(objects).replace_schema_metadata(None), lost)
    labels = tmp_path / "labels.csv"
    labels.write_text("row,label\n0,a\n1,b\n2,a\n")
    classifier = classifier_file(tmp_path / "c.json", fingerprint=read_info(objects).fingerprint)
    values = json.loads(classifier.read_text())
    for name in ("mean", "scale"):
        values[name] += [1.0, 1.0]
    values["weights"] = [[*row, 0.0, 0.0] for row in values["weights"]]
    classifier.write_text(json.dumps(values))
    out = tmp_path / "out"
    commands = [
        ("index", lost, "--out", out / "index"),
        ("cluster", lost, "--out", out / "c.parquet", "-k", 2),
        ("outliers", lost, "--out", out / "o.csv"),
        ("classify", "fit", lost, "--labels", labels, "--out", out / "fitted.json"),
        ("classify", "predict", classifier, lost, "--out", out / "p.csv"),
        ("convert", lost, "--to", "coco", "--out", out / "r.json"),
        ("convert", lost, "--to", "parquet", "--out", out / "r.parquet"),
    ]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 2, command
        assert "name the model with --model" in result.stderr.replace("\n", " ")
        assert not out.exists()
    for command in commands:
        ok(*command, "--model", tiny_model_dir)
    assert read_info(out / "c.parquet").fingerprint == read_info(objects).fingerprint
    result = run(*commands[0], "--force", "--model", agnostic_model_dir)
    assert "is wrong: label must be within 0 ... 0" in result.stderr.replace("\n", " ") or (
        "class is not the name of the label" in result.stderr.replace("\n", " ")
    )
    # A file that names its model is refused with any other model.
    for command in commands:
        again = [objects if part == lost else part for part in command]
        result = run(*again, "--force", "--model", agnostic_model_dir)
        assert result.exit_code == 2
        assert "don't go together" in result.stderr.replace("\n", " ")
