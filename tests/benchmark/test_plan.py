"""Tests of plans for encoding many images: their arithmetic, and the measurements that they use."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ssdir.analysis.search import ObjectIndex
from ssdir.benchmark import encoding_cost as module
from ssdir.benchmark.encoding_cost import EncodingCost, SampleImages, WorkersCost, measure_encoding
from ssdir.benchmark.plan import MEASURED_INDEX, EncodingPlan, PlanOptions, plan, read_count
from ssdir.benchmark.plan_tables import format_hours, plan_tables
from ssdir.benchmark.timing import Spread
from ssdir.cli import app
from ssdir.data.images import image_size
from ssdir.data.samples import sample_images
from ssdir.encoding.encode import encode_images
from ssdir.encoding.options import EncodeOptions
from ssdir.errors import InputError, InputWarning
from ssdir.inference.engines import load_encoder
from ssdir.object_arrays import ObjectArrays
from ssdir.store.writer import ObjectWriter


def workers(number: int, rate: float, device: str = "cpu") -> WorkersCost:
    return WorkersCost(
        device=device,
        device_name=device,
        workers=number,
        images=100,
        images_per_second=Spread(median=rate, min=0.9 * rate, max=1.1 * rate),
        start_seconds=3.0,
        peak_mb=700.0,
    )


def measured(**changes: Any) -> EncodingCost:
    """Returns a measurement of four cores: 5 images/s each, 2.5 objects and 4,000 bytes for an image."""
    cost = EncodingCost(
        model="made-up",
        latent_dim=64,
        cores=4,
        load=0.1,
        sample=SampleImages(
            generated=False,
            images=100,
            unreadable=0,
            megapixels=0.3,
            file_bytes=100_000.0,
            objects=2.5,
            objects_error=0.25,
        ),
        one_core=workers(1, 6.25),
        all_cores=workers(4, 20.0),
        scaling=Spread(median=0.8, min=0.7, max=0.9),
        gpus=[],
        reading_share=Spread(median=0.1, min=0.1, max=0.1),
        part_images=100,
        part_objects=250,
        part_bytes=400_000,
        provenance={},
    )
    return cost.model_copy(update=changes)


def test_a_plan_by_cores_is_the_arithmetic_by_hand() -> None:
    planned = plan(measured(), PlanOptions(10**9, deadline_hours=24, core_hour_price=0.04))
    assert (planned.images_per_part, planned.parts) == (10_000, 100_000)
    cores = planned.cores
    # A core encodes a part in 10,000 / 5 = 2,000 s: 43 parts in 24 h; a machine of four takes 25,000 rounds of it.
    assert cores.part_hours.value == pytest.approx(2000 / 3600)
    assert cores.device_hours.value == pytest.approx(2e8 / 3600)
    assert cores.hours.value == pytest.approx(25_000 * 2000 / 3600)
    assert cores.machines is not None
    assert cores.machines.value == 582  # 100,000 / (4 * 43) = 581.4
    assert cores.read_per_second is not None
    assert cores.read_per_second.value == pytest.approx(582 * 20 * 100_000)
    assert cores.cost is not None
    assert cores.cost.value == pytest.approx(0.04 * 2e8 / 3600)
    assert planned.objects.value == 2.5e9
    assert planned.output.value == pytest.approx(4e12)
    assert planned.scaling.value == 0.8
    assert planned.gpus is None


def test_the_index_of_a_plan_is_that_which_a_search_would_choose() -> None:
    index = plan(measured(), PlanOptions(10**9)).index
    assert index is not None
    assert (index.kind, index.partitions) == ("IVF-PQ", 50_000)
    # row, key, image_index; 4 of 32 bits; boxes, score, size, depth; z_what; then 32 bytes quantised and a row id
    assert index.size.value == 2.5e9 * (3 * 8 + 4 * 4 + 7 * 4 + 64 * 4 + 32 + 8)
    known = MEASURED_INDEX
    assert index.least_hours.value == pytest.approx(
        2.5e9 / known.objects * 64 / known.latent_dim * known.seconds / 3600
    )
    # k-means had as many partitions as the square root of the objects, from a million on.
    assert index.most_hours.value == pytest.approx(50_000 / known.objects**0.5 * index.least_hours.value, rel=1e-3)
    few, some = (plan(measured(), PlanOptions(images)).index for images in (10_000, 200_000))
    assert few is not None
    assert some is not None
    assert (few.kind, few.partitions, some.kind, some.partitions) == ("exact", 0, "IVF", 500)
    assert plan(measured(part_objects=0), PlanOptions(10**6)).index is None


def test_an_index_has_the_size_that_a_plan_computes(tmp_path: Path) -> None:
    count, dim = 3000, 64
    rng = np.random.default_rng(0)
    with ObjectWriter(tmp_path / "objects.parquet", "made-up", ["object"], dim, "made-up") as writer:
        objects = ObjectArrays(
            image_index=np.arange(count) // 10,
            batch_size=count // 10,
            z_where=rng.uniform(0.3, 0.5, (count, 4)).astype(np.float32),
            scores=rng.uniform(size=count).astype(np.float32),
            labels=np.zeros(count, dtype=np.int64),
            z_what=rng.normal(size=(count, dim)).astype(np.float32),
            z_what_scale=None,
            z_depth=rng.normal(size=count).astype(np.float32),
            anchor_index=np.arange(count),
        )
        writer.write(objects, [f"{number}.png" for number in range(count // 10)], [(128, 128)] * (count // 10))
    ObjectIndex.create(tmp_path / "index", [tmp_path / "objects.parquet"])
    size = sum(file.stat().st_size for file in (tmp_path / "index").rglob("*") if file.is_file())
    index = plan(measured(part_objects=300), PlanOptions(1000)).index
    assert index is not None
    assert index.size.value == pytest.approx(size, rel=0.2)


def test_the_index_that_was_measured_is_the_committed_one() -> None:
    record = json.loads((Path(__file__).parents[2] / "results/bench/search.json").read_text())
    config, metrics = record["provenance"]["config"], record["metrics"]
    build = metrics["clustered"]["build"]
    committed = (config["objects"], config["dim"], build["seconds"], build["peak_mb"])
    assert astuple(MEASURED_INDEX) == pytest.approx(committed, rel=0.005)


def test_cores_that_did_not_run_are_extrapolated() -> None:
    measured_all, more = (plan(measured(cores=cores), PlanOptions(10**6)).cores for cores in (4, 64))
    assert (measured_all.images_per_second.origin, more.images_per_second.origin) == ("measured", "extrapolated")
    assert more.images_per_second.value == pytest.approx(20 / 4 * 64)
    assert more.device_hours == measured_all.device_hours


def test_gpus_are_planned_beside_cores() -> None:
    gpus = [workers(1, 900.0, "cuda:0"), workers(1, 1100.0, "cuda:1")]
    planned = plan(measured(gpus=gpus), PlanOptions(10**9, 24, gpu_hour_price=2.5)).gpus
    assert planned is not None
    # 1,000 images/s each: a part takes 10 s, 8,640 parts fit into 24 h, and two GPUs encode 100,000 in 6 machines.
    assert planned.device_hours.value == pytest.approx(1e6 / 3600)
    assert planned.machines is not None
    assert planned.machines.value == 6
    assert planned.cost is not None
    assert planned.cost.value == pytest.approx(2.5e6 / 3600)


def test_a_part_that_takes_longer_than_the_deadline_is_reported() -> None:
    planned = plan(measured(), PlanOptions(10**9, deadline_hours=0.5))
    assert planned.cores.machines is None
    assert planned.cores.read_per_second is None
    rows = [row for table in plan_tables(planned) for row in table.rows]
    assert ("machines like this for 0.5 h", "none", "a part takes longer") in rows


def test_a_plan_for_few_images_is_of_one_part() -> None:
    planned = plan(measured(), PlanOptions(3))
    assert (planned.parts, planned.images_per_part) == (1, 3)
    assert planned.cores.hours.value == pytest.approx(3 / 5 / 3600)


@pytest.mark.parametrize(
    ("text", "number"), [("1e9", 10**9), ("1_000_000", 10**6), ("2.5e6", 2_500_000), ("1", 1)]
)
def test_numbers_of_images_are_read_as_people_write_them(text: str, number: int) -> None:
    assert read_count(text) == number


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "1e-3", "many", "", "nan", "inf", "1e400", "1e16", "1__0"])
def test_other_numbers_of_images_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"must be a whole number from 1 to 1e15, got '"):
        read_count(text)


def test_hours_are_shown_in_a_unit_that_fits() -> None:
    assert [format_hours(value) for value in (0.001, 0.5, 30, 240)] == [
        "3.60 s",
        "30.0 min",
        "30.0 h",
        "10.0 days",
    ]


def bench(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tiny-digits", "--plan", "0"), "the images to plan for must be a whole number from 1 to 1e15, got '0'"),
        (("tiny-digits", "photos", "--plan", "10"), "--plan takes one model, got 2"),
        (
            ("tiny-digits", "--plan", "10", "--hours", "0"),
            "the hours in which to encode must be more than 0, got 0",
        ),
        (("tiny-digits", "--plan", "10", "--price-per-core-hour", "-1"), "price of a core-hour must be 0 or more"),
        (("tiny-digits", "--plan", "10", "--objects", "3"), "--objects has no effect with --plan: leave it out"),
        (("tiny-digits", "--plan", "10", "--no-memory"), "--memory has no effect with --plan: leave it out"),
        (("tiny-digits", "--images", "a.png"), "--images has no effect without --plan: leave it out"),
        (("tiny-digits", "--plan", "10", "--images", "nowhere"), "'nowhere' does not exist"),
        (("space-64", "--plan", "10"), "'space-64' is a preset, which must be trained first"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(arguments: tuple[str, ...], sentence: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not result.stdout


@pytest.mark.slow
def test_a_measurement_is_of_what_encode_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_usable_cores", lambda: 2)
    images = tmp_path / "images"
    images.mkdir()
    for number, sample in enumerate(sample_images(7)):
        cv2.imwrite(str(images / f"{number}.png"), sample.image)
    (images / "7.png").write_bytes(b"not an image")
    monkeypatch.setattr(module, "_load", lambda: 3.25)
    with (
        pytest.warns(InputWarning, match="1 of 8 images that were measured couldn't be read"),
        pytest.warns(
            InputWarning, match="3.2 other processes run on 2 cores: what is measured is what they leave"
        ),
    ):
        cost = measure_encoding("tiny-digits", [images], seconds=0.01, repeats=2)
    written = encode_images("tiny-digits", [images], tmp_path / "out", EncodeOptions(device="cpu"))
    assert (cost.part_images, cost.part_objects) == (8, written.objects)
    # Parts keep the digest of their encoding, whose checksum may have another number of digits.
    assert cost.part_bytes == pytest.approx((tmp_path / "out" / "part-0000000.parquet").stat().st_size, abs=4)
    assert (cost.sample.generated, cost.sample.images, cost.sample.unreadable) == (False, 8, 1)
    assert cost.sample.objects == written.objects / 8
    assert cost.sample.megapixels == pytest.approx(128 * 128 / 1e6)
    assert (cost.one_core.workers, cost.all_cores.workers, cost.cores) == (1, 2, 2)
    # The parent process, with more threads, is no worker: each has loaded torch and the model.
    assert min(cost.one_core.peak_mb, cost.all_cores.peak_mb) > 200
    rounds = zip(cost.one_core.images_per_second, cost.all_cores.images_per_second, strict=True)
    assert all(one > 0 and both > 0 for (_, one), (_, both) in rounds)
    assert 0 < cost.reading_share.median < 1


def test_without_images_a_model_gets_samples_that_it_may_know(tmp_path: Path) -> None:
    for model, suffix, side in (("tiny-digits", ".png", 128), ("photos", ".jpg", 400)):
        folder = tmp_path / model
        folder.mkdir()
        files = module._sample(model, load_encoder(model, device="cpu"), folder)
        assert {Path(file).suffix for file in files} == {suffix}
        assert image_size(files[-1]) == (side, side)
    with pytest.raises(InputError, match=r"'a.onnx' doesn't say which images it was trained on"):
        module._sample("a.onnx", load_encoder("tiny-digits", device="cpu"), tmp_path)
    with pytest.warns(InputWarning, match="samples were measured: give images of your own by --images"):
        module._warn_of(measured().sample.model_copy(update={"generated": True}))


def test_the_command_prints_and_writes_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = measured(gpus=[workers(1, 900.0, "cuda:0")])
    monkeypatch.setattr(module, "measure_encoding", lambda model, images, on_progress: cost)
    arguments = ("tiny-digits", "--plan", "2.5e6", "--price-per-core-hour", "0.04", "--price-per-gpu-hour", "2.5")
    out = tmp_path / "plan.json"
    result = bench(*arguments, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(out.read_text())
    expected = plan(cost, PlanOptions(2_500_000, 24, 0.04, 2.5))
    assert EncodingPlan.model_validate_json(result.stdout) == expected
    shown = bench(*arguments).stdout.splitlines()
    assert {"2,500,000 images by cores", "2,500,000 images by GPUs"} <= {line.strip() for line in shown}
    assert max(map(len, shown)) <= 80
    assert shown[-1] == "next: ssdir encode tiny-digits IMAGES --out objects"
