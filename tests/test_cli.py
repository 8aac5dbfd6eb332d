import errno
import json
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.main import get_command

import ssdir
from command_line import files_in, ok, refused, run
from data.records import entity_masks, example, write_records
from ssdir.cli import app
from ssdir.config import presets
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.models.backbones.conv import ConvBackbone
from ssdir.training.session import Session

Picture = NDArray[np.uint8]


# Help ----------------------------------------------------------------------------------------------------


def test_help_has_every_command_in_a_section_with_its_whole_summary() -> None:
    group: Any = get_command(app)
    sections, names = [], set()
    for line in ok("--help").stdout.split("Start:")[1].splitlines():
        if line.endswith(":"):
            sections.append(line)
        elif line.startswith("  ") and not line.startswith("   "):
            names.add(line.split()[0])
    assert sections == ["Train and measure:", "Use a model:", "Look into objects:"]
    assert names - {"Start"} == set(group.commands)
    assert "..." not in ok("--help").stdout.partition("Start:")[2]


@pytest.mark.parametrize(
    ("command", "slow"),
    [
        ("--help", {"torch", "lightning", "pyarrow", "pydantic", "numpy", "PIL", "rich.markdown"}),
        ("models", {"torch", "lightning", "pyarrow"}),
    ],
)
def test_what_needs_no_torch_imports_none(command: str, slow: set[str]) -> None:
    code = (
        "import sys, ssdir.cli\n"
        f"try: ssdir.cli.app(['{command}'])\n"
        "except SystemExit: pass\n"
        f"slow = {slow}\n"
        "heavy = slow & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert ok("--version").stdout == f"ssdir {ssdir.__version__}\n"


def test_piped_output_has_no_colours() -> None:
    script = Path(sys.executable).with_name("ssdir")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_help_that_can_not_be_printed_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ssdir", "--help"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode != 0
    assert done.stderr.startswith("error: No space left on device\n")
    assert "Traceback" not in done.stderr


# data scatter and evaluate -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    sizes = ["--canvas", "64", "--train", "12", "--val", "2", "--test", "6"]
    result = ok("data", "scatter", "--out", folder, *sizes, "--grids", "2, 3")
    assert "20 images" in result.stdout
    assert "next: ssdir train" in result.stdout
    return folder


def test_scatter_writes_a_data_set(digits: Path) -> None:
    content = json.loads((digits / "annotations" / "instances_test.json").read_text())
    assert len(content["images"]) == 6
    assert content["info"]["config"]["grids"] == [2, 3]
    assert len(list((digits / "train").iterdir())) == 12


def test_scatter_leaves_defaults_to_the_configs_and_its_help_states_them() -> None:
    import inspect

    from ssdir.commands.data.scatter import scatter
    from ssdir.data.scatter.generator import ScatterConfig
    from ssdir.data.scatter.moving import MovingConfig

    images, clips = ScatterConfig(), MovingConfig()
    stated = {
        "canvas": f"{images.canvas}",
        "grids": ",".join(map(str, images.grids)),
        "min_size": f"by default {images.min_size}, for clips {clips.min_size}",
        "max_size": f"by default {images.max_size}, for clips {clips.max_size}",
        "position_variance": f"by default {images.position_variance}",
        **{
            split: f"({images.count(split)}) or clips ({clips.count(split)})" for split in ("train", "val", "test")
        },
    }
    parameters = inspect.signature(scatter, eval_str=True).parameters
    for name in (ScatterConfig.model_fields.keys() | MovingConfig.model_fields) & parameters.keys() - {"seed"}:
        assert parameters[name].default is None, name
        help_text = parameters[name].annotation.__metadata__[0].help
        assert stated.get(name, "") in help_text.replace("10,000", "10000").replace("1,000", "1000"), name
    assert images.canvas == clips.canvas


def test_help_states_the_gap_of_tracks_and_names_every_experiment() -> None:
    import inspect

    from ssdir.commands.reproduce import reproduce
    from ssdir.commands.track import track
    from ssdir.reproduce.catalogue import EXPERIMENTS
    from ssdir.tracking.options import TrackOptions

    def help_of(command: Callable[..., None], name: str) -> str:
        help_text: str = inspect.signature(command, eval_str=True).parameters[name].annotation.__metadata__[0].help
        return help_text

    assert f"by default {TrackOptions().max_gap}." in help_of(track, "max_gap")
    named = help_of(reproduce, "experiments").partition(";")[0].replace(" or ", ", ").split(", ")
    assert named == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--grids", "2,x"], "grids"),
        (["--canvas", "3"], "canvas"),
        (["--min-size", "0.9", "--max-size", "0.5"], "min_size"),
        (["--source", "digit"], "did you mean 'digits'?"),
        (["--source", "mnist", "--root", "nowhere"], "nowhere"),
        (["--train", "0", "--val", "0", "--test", "0"], "0 images"),
        (["--frames", "3", "--train", "0", "--val", "0", "--test", "0"], "0 clips"),
        (["--frames", "3", "--objects", "9-2"], "objects must be a range within 1 ... 250, got 9 to 2"),
        (["--frames", "3", "--grids", "2,3"], "--grids, --position-variance and --colours are of images"),
        (["--frames", "3", "--colours"], "--colours are of images"),
        (["--difficulty", "hard"], "--difficulty is of clips"),
    ],
)
def test_scatter_refusals(out: Path, options: Sequence[str], sentence: str) -> None:
    assert sentence in refused("data", "scatter", "--out", out, *options)
    assert not out.exists()


def test_scatter_makes_clips_of_either_difficulty(out: Path) -> None:
    counts = ("--train", 1, "--val", 0, "--test", 1, "--seed", 3)
    ok("data", "scatter", "--out", out, "--frames", 4, "--difficulty", "hard", "--objects", 5, *counts)
    names = [str(path.relative_to(out)) for path in sorted(out.glob("*/*/img1/*.png"))]
    assert names == [
        f"{split}/{split}-0000/img1/00000{frame}.png" for split in ("test", "train") for frame in (1, 2, 3, 4)
    ]
    config = json.loads((out / "annotations" / "instances_train.json").read_text())["info"]["config"]
    assert (config["opaque"], config["objects"], config["seed"], config["frames"]) == ("hull", [5, 5], 3, 4)


def test_scatter_keeps_an_existing_folder(digits: Path, photos: Path) -> None:
    before = files_in(photos)
    refused("data", "scatter", "--out", digits)
    refused("data", "scatter", "--out", photos, "--force")
    assert files_in(photos) == before


def test_convert_writes_all_splits(digits: Path, out: Path) -> None:
    result = ok("data", "convert", digits, "--to", "yolo", "--out", out)
    assert "train: 12 images" in result.stdout
    assert f"COCO written as yolo: {out}" in result.stdout
    assert len(list((out / "labels" / "test").iterdir())) == 6
    assert "exists already" in refused("data", "convert", digits, "--to", "voc", "--out", out)
    report = json.loads(ok("data", "convert", digits, "--to", "voc", "--out", out, "--force", "--json").stdout)
    assert report["splits"]["train"]["images"] == 12
    assert report["out"] == str(out)
    assert not (out / "labels").exists()


def test_convert_refusals(digits: Path, photos: Path, out: Path) -> None:
    assert "no layout" in refused("data", "convert", photos, "--to", "voc", "--out", out)
    assert "would replace" in refused("data", "convert", digits, "--to", "voc", "--out", digits, "--force")
    assert run("data", "convert", digits, "--to", "voc2", "--out", out).exit_code == 2
    assert not out.exists()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes six images of Objects Room, each with one object."""
    size = (64, 64)
    masks = entity_masks(size, (10, 20, 30, 50), background=4)
    record = example(image=bytes(64 * 64 * 3), mask=masks.tobytes())
    return write_records(tmp_path_factory.mktemp("packed") / "objects_room_train.tfrecords", [record] * 6)


def test_unpack_writes_a_data_set_that_can_be_checked(packed: Path, out: Path) -> None:
    result = ok("data", "unpack", packed, "--out", out, "--train", 3, "--val", 1, "--test", 2)
    assert "train: 3 images, 3 objects" in result.stdout
    assert "test: 2 images, 2 objects" in result.stdout
    assert f"next: ssdir data check {out} --split train" in result.stdout
    summary = json.loads(ok("data", "check", out, "--split", "val", "--json").stdout)["summary"]
    assert (summary["images"], summary["objects"], summary["classes"]) == (1, 1, {"object": 1})
    assert "exists already" in refused("data", "unpack", packed, "--out", out)
    counts = ["--train", 0, "--val", 0, "--test", 6]
    report = json.loads(ok("data", "unpack", packed, "--out", out, *counts, "--force", "--json").stdout)
    assert report == {"splits": {"test": {"images": 6, "objects": 6}}, "out": str(out)}
    assert files_in(out / "images")[0] == "test"


def test_unpack_refusals(packed: Path, digits: Path, out: Path) -> None:
    assert "6 images, but 12000 were asked for" in refused("data", "unpack", packed, "--out", out)
    assert "is not readable" in refused("data", "unpack", packed.with_name("tetrominoes.tfrecords"), "--out", out)
    renamed = packed.rename(packed.with_name("room.tfrecords"))
    assert "not called as any known data set" in refused("data", "unpack", renamed, "--out", out)
    renamed.rename(packed)
    assert "asked for" in refused("data", "unpack", packed, "--out", out, "--train", 0, "--val", 0, "--test", 0)
    assert not out.exists()


@pytest.mark.parametrize(
    "command", [["data", "check"], ["train", "tiny", "--data"], ["data", "convert", "--to", "coco"]]
)
def test_record_files_must_be_unpacked(packed: Path, out: Path, command: list[str]) -> None:
    sentence = refused(*command, packed, "--out", out)
    assert f"must be unpacked first: ssdir data unpack {packed} --out FOLDER" in sentence
    assert not out.exists()


@pytest.fixture
def few_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_glyphs("digits", "test").images[:20]
    monkeypatch.setattr("ssdir.evaluation.evaluate.load_glyphs", lambda *_: types.SimpleNamespace(images=images))


def test_evaluate_reads_each_image_once(
    agnostic_model_dir: Path, digits: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    pyramid = ConvBackbone.pyramid

    def counted(self: ConvBackbone, images: torch.Tensor, finer: bool = False) -> list[torch.Tensor]:
        read.append(len(images))
        return pyramid(self, images, finer)

    monkeypatch.setattr(ConvBackbone, "pyramid", counted)
    monkeypatch.setattr("ssdir.evaluation.evaluate._unseen_glyphs", lambda *args: None)
    options = ["--out", out / "metrics.json", "--max-images", "4", "--train-split", "none"]
    ok("evaluate", agnostic_model_dir, digits, *options)
    assert read.count(4) == 1, "embeddings and floors share the detector's pass over the images"


@pytest.mark.usefixtures("few_glyphs")
def test_evaluate_class_agnostic(agnostic_model_dir: Path, digits: Path, out: Path) -> None:
    path = out / "metrics.json"
    limits = ["--max-images", "4", "--max-train-images", "8"]
    result = ok("evaluate", agnostic_model_dir, digits, "--out", path, *limits)
    report = json.loads(path.read_text())
    assert report.keys() == {"metrics", "provenance"}
    assert 0 <= report["metrics"]["detection/ap"] <= 1
    assert {"reconstruction/mse", "scale/drift", "scale/retrieval_at_1"} <= report["metrics"].keys()
    assert report["provenance"]["config"]["max_images"] == 4
    assert report["provenance"]["data_hash"]
    assert "detection/ap" in result.stdout
    assert "next: ssdir reconstruct" in result.stdout
    assert files_in(out) == ["metrics.json"]


@pytest.mark.usefixtures("few_glyphs")
def test_evaluate_at_another_operating_point(agnostic_model_dir: Path, digits: Path) -> None:
    options = ["--train-split", "none", "--max-images", "4", "--json", "--score-threshold"]
    blind, lenient = (
        json.loads(ok("evaluate", agnostic_model_dir, digits, *options, value).stdout) for value in ("1", "0.01")
    )
    assert blind["metrics"]["detection/recall"] == 0 < lenient["metrics"]["detection/recall"]
    assert blind["metrics"]["detection/ap"] == lenient["metrics"]["detection/ap"]
    assert blind["provenance"]["config"]["score_threshold"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("few_glyphs")
def test_an_exported_file_measures_as_the_model_it_came_from(
    agnostic_model_dir: Path, digits: Path, out: Path
) -> None:
    file = out / "m.onnx"
    ok("export", agnostic_model_dir, "--out", file)
    limits = ("--max-images", "4", "--max-train-images", "8", "--score-threshold", "0.01", "--json")
    reports = [json.loads(ok("evaluate", each, digits, *limits).stdout) for each in (agnostic_model_dir, file)]
    model, own = (report["metrics"] for report in reports)
    for name in ("detection/ap", "detection/recall", "probe/accuracy"):
        assert own[name] == pytest.approx(model[name], abs=1e-3), name
    # An exported file has no decoder and no pooled features, and embeds no boxes other than its detections.
    missing = {"reconstruction/mse", "probe/pooled_features/accuracy", "probe/true_boxes/accuracy", "scale/drift"}
    assert missing <= model.keys() - own.keys()
    assert reports[1]["provenance"]["config"]["exported"]["precision"] == "float32"
    assert "leave out --precision" in refused("evaluate", file, digits, "--precision", "bf16")


@pytest.mark.usefixtures("few_glyphs")
def test_evaluate_prints_json(agnostic_model_dir: Path, digits: Path) -> None:
    options = ["--train-split", "none", "--max-images", "2", "--json"]
    result = ok("evaluate", agnostic_model_dir, digits, *options)
    metrics = json.loads(result.stdout)["metrics"]
    assert "detection/ap" in metrics
    assert not any(name.startswith("probe/") for name in metrics)


@pytest.mark.usefixtures("few_glyphs")
def test_nothing_is_probed_on_images_that_the_probe_learned_from(agnostic_model_dir: Path, digits: Path) -> None:
    result = ok("evaluate", agnostic_model_dir, digits, "--split", "train", "--max-images", "2", "--json")
    assert "no probes: they would learn from images of 'train'" in " ".join(result.stderr.split())
    report = json.loads(result.stdout)
    assert not any(name.startswith("probe/") for name in report["metrics"])
    assert report["provenance"]["config"]["train_split"] == "none"


def test_evaluate_refusals(agnostic_model_dir: Path, tiny_model_dir: Path, digits: Path, out: Path) -> None:
    path = out / "metrics.json"
    assert "does not exist" in refused("evaluate", agnostic_model_dir, "nowhere", "--out", path)
    assert "instances_tset.json" in refused(
        "evaluate", agnostic_model_dir, digits, "--out", path, "--split", "tset"
    )
    assert "choose another split to measure" in refused("evaluate", agnostic_model_dir, digits, "--split", "tset")
    assert "from which probes learn, or none" in refused(
        "evaluate", agnostic_model_dir, digits, "--train-split", "trian"
    )
    assert "unknown class 'cat'" in refused("evaluate", tiny_model_dir, digits, "--out", path)
    assert not out.exists()


# train ---------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 3\n")
    return path


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("detector.epoch=1", "unknown key 'detector.epoch'; did you mean 'epochs'?"),
        ("detector.lr=-1", "'detector.lr'"),
        ("detector.epochs=many", "'detector.epochs'"),
        ("stage=detectr", "'stage'"),
        ("model.decoder.alpha=purple", "'model.decoder.alpha'"),
        ("seed", "key=value"),
    ],
)
def test_train_bad_overrides(recipe: Path, digits: Path, out: Path, override: str, sentence: str) -> None:
    assert sentence in refused("train", recipe, override, "--data", digits, "--out", out)
    assert not out.exists()


def test_train_refuses_an_invalid_model_before_it_makes_a_folder(tmp_path: Path, digits: Path, out: Path) -> None:
    path = tmp_path / "three.yaml"
    path.write_text("base: tiny\nmodel: {ssd: {anchors: {min_sizes: [8, 16], max_sizes: [16, 32]}}}\n")
    assert "three.yaml': anchors.min_sizes must have 3 entries" in refused(
        "train", path, "--data", digits, "--out", out
    )
    assert not out.exists()


def test_train_unknown_recipe(digits: Path, out: Path) -> None:
    assert "is a trained model, not a preset" in refused("train", "tiny-digits", "--data", digits, "--out", out)
    assert "unknown preset 'nope'" in refused("train", "nope", "--data", digits, "--out", out)
    assert "does not exist" in refused("train", "nope.yaml", "--data", digits, "--out", out)
    for name in presets()[:1]:
        assert f"did you mean '{name}'?" in refused("train", f"{name}x", "--data", digits, "--out", out)
    assert not out.exists()


def test_train_without_data(recipe: Path, tmp_path: Path, out: Path) -> None:
    assert "does not exist" in refused("train", recipe, "--data", tmp_path / "nowhere", "--out", out)
    (tmp_path / "empty").mkdir()
    sentence = refused("train", recipe, "--data", tmp_path / "empty", "--out", out)
    assert "has no layout that ssdir knows: it has nothing; known are CLEVR, COCO, " in sentence
    assert len(sentence) < len(str(tmp_path)) + 220
    assert not out.exists()


def fake_fit(monkeypatch: pytest.MonkeyPatch, train: Callable[..., Any]) -> None:
    module = types.ModuleType("ssdir.training.fit")
    monkeypatch.setattr(module, "train", train, raising=False)
    monkeypatch.setitem(sys.modules, "ssdir.training.fit", module)


def test_train_passes_its_options(recipe: Path, digits: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def train(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return types.SimpleNamespace(model_dir=out / "model", seconds={"detector": 1.0})

    fake_fit(monkeypatch, train)
    command = ["train", recipe, "stage=detector", "detector.lr=1e-2", "--data", digits, "--out", out]
    command += ["--device", "cpu"]
    rest = f"stage=representation --data {digits} --out {out} --resume"
    assert f"next: ssdir train {recipe} detector.lr=1e-2 {rest}" in ok(*command, "--resume").stdout
    (out / "model").mkdir(parents=True)
    result = ok(*command, "--resume")
    assert f"next: ssdir evaluate {out / 'model'}" in result.stdout
    assert result.stderr.count("training on cpu") == 1
    report = json.loads(ok(*command, "--resume", "--json").stdout)
    expected = {"model": str(out / "model"), "seconds": {"detector": 1.0}, "kept_epoch": None, "kept_ap50": None}
    assert report == expected
    ((settings, data, folder), options) = calls[0]
    assert (settings.seed, settings.stage, settings.detector.lr) == (3, "detector", 0.01)
    assert (data, folder) == (digits, out)
    assert options == {"resume": True, "force": False, "start": None, "session": Session(device="cpu")}


def test_interrupted_training_prints_how_to_resume(
    recipe: Path, digits: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    fake_fit(monkeypatch, train)
    before = run("train", recipe, "--data", digits, "--out", out)
    assert before.exit_code == 130
    assert "no unfinished output was kept" in before.stderr
    out.mkdir()
    (out / "recipe.yaml").touch()
    result = run("train", recipe, "--data", digits, "--out", out)
    assert result.exit_code == 130
    assert "--resume" in result.stderr


# models and demo -----------------------------------------------------------------------------------------


def test_models() -> None:
    from ssdir.models.shipped import shipped_models

    listed = json.loads(ok("models", "--json").stdout)
    assert [preset["name"] for preset in listed["presets"]] == presets()
    assert [model["name"] for model in listed["models"]] == list(shipped_models())
    text = ok("models").stdout
    assert "next: ssdir encode" in text
    assert all(name in text for name in (*presets(), *shipped_models()))


def test_listed_models_have_the_image_size_that_they_are_built_with() -> None:
    from ssdir.training.recipe import read_recipe

    entries = ssdir.list_models()
    assert {entry.name for entry in entries if not entry.trained} == set(presets())
    for entry in entries:
        if entry.trained:
            assert ssdir.load(entry.name, "cpu").image_size == entry.image_size
        else:
            assert read_recipe(entry.name).model.image_size == entry.image_size
        assert 10 < len(entry.description) <= 100
        assert entry.trained or entry.description.endswith(".")
        assert "#" not in entry.description


def test_demo_passes_its_options(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    module = types.ModuleType("ssdir.demo")
    monkeypatch.setattr(module, "run_demo", lambda *args, **options: calls.append((args, options)), raising=False)
    monkeypatch.setitem(sys.modules, "ssdir.demo", module)
    ok("demo", "--out", out, "--full", "--seed", "7", "--device", "cpu")
    assert calls == [((out,), {"full": True, "seed": 7, "force": False, "device": "cpu"})]


def wrapped_by_a_class() -> RuntimeError:
    """Returns the error that Ctrl-C raises while a class is being created, before Python 3.12."""
    error = RuntimeError("Error calling __set_name__")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: Permission denied: 'x'"),
        (MemoryError(), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (wrapped_by_a_class(), 130, "interrupted"),
    ],
)
def test_what_the_system_refuses(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, sentence: str
) -> None:
    def run_demo(*_: Any, **__: Any) -> None:
        raise error

    module = types.ModuleType("ssdir.demo")
    monkeypatch.setattr(module, "run_demo", run_demo, raising=False)
    monkeypatch.setitem(sys.modules, "ssdir.demo", module)
    result = run("demo")
    assert result.exit_code == code
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
