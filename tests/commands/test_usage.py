"""Command lines that do not parse are answered with one sentence, and help is plain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import ok, refused, run
from ssdir.models.io import load_model, save_model
from ssdir.models.ssdir import SSDIR

OUT = ("--out", "o.parquet")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict"], "ssdir has no command 'predict'; did you mean 'encode'?"),
        (["infer", "tiny"], "did you mean 'encode'?"),
        (["fit"], "did you mean 'train'?"),
        (["test"], "did you mean 'evaluate'?"),
        (["check"], "did you mean 'data check'?"),
        (["ecnode"], "did you mean 'encode'?"),
        (["help"], "did you mean '--help'?"),
        (["xyzzy"], "ssdir has no command 'xyzzy'; see ssdir --help"),
        (["data", "chek"], "ssdir data has no command 'chek'; did you mean 'check'?"),
        (["classify", "train"], "did you mean 'fit'?"),
        (["train", "tiny", "--epochs", "3"], "changed by KEY=VALUE: detector.epochs=3"),
        (["train", "tiny", "--lr=3"], "KEY=VALUE: detector.lr="),
        (["train", "tiny", "--batch-size", "8"], "KEY=VALUE: detector.batch_size="),
        (["encode", "m", "x", "--ou", "y"], "ssdir encode has no option --ou; did you mean '--out'?"),
        (["encode", "--zzz"], "ssdir encode has no option --zzz; see ssdir encode --help"),
        (["encode", "m", "x"], "ssdir encode needs --out: What to write"),
        (["encode", "m", *OUT], "ssdir encode needs PATH...: Images, folders"),
        (["encode", "m", "x", "--out"], "--out needs a value"),
        (["encode", "m", "x", "--strict=4"], "--strict takes no value"),
        (["encode", "m", "x", *OUT, "--batch-size", "a"], "--batch-size must be a whole number, got 'a'"),
        (["encode", "m", "x", *OUT, "--batch-size", "0"], "--batch-size must be at least 1, got '0'"),
        (["encode", "m", "x", *OUT, "--score-threshold", "2"], "--score-threshold must be at most 1, got '2'"),
        (["encode", "m", "x", *OUT, "--engine", "torsh"], "--engine must be torch, onnx or ray, got 'torsh'; did"),
        (["models", "a", "b"], "ssdir models does not take 'a b'"),
    ],
)
def test_what_does_not_parse_is_one_sentence(words: list[str], sentence: str) -> None:
    line = refused(*words)
    assert sentence in line
    assert "Input should" not in line
    assert "No such" not in line


def test_every_suggested_override_is_one_that_a_recipe_takes() -> None:
    from ssdir.commands.suggestions import _TRAIN_OVERRIDES
    from ssdir.training.recipe import read_recipe

    for overrides in _TRAIN_OVERRIDES.values():
        read_recipe("photos", overrides.split())


def test_every_suggested_command_exists() -> None:
    from ssdir.commands.suggestions import _OTHER_NAMES

    for words in _OTHER_NAMES:
        group = ["classify"] if words in ("fit", "predict") else []
        ok(*group, *words.split(), "--help")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_values_plainly(option: str) -> None:
    text = ok("encode", option).stdout
    assert "Usage: ssdir encode MODEL PATH... --out OUT [OPTIONS]" in text
    assert "--batch-size N " in text
    assert "--score-threshold X " in text
    assert "--engine torch|onnx|ray " in text
    assert "<" not in text.replace("<=", "")
    converts = ok("data", "convert", option).stdout
    assert "Usage: ssdir data convert DATA --to coco|yolo|voc|mot --out PATH [OPTIONS]" in converts


def test_without_arguments_help_is_printed_with_the_exit_code_of_bad_input() -> None:
    result = run()
    assert result.exit_code == 2
    assert result.stdout.startswith("Usage: ssdir [OPTIONS] COMMAND")


def test_ctrl_c_within_a_group_of_commands_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_data(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssdir.data_check.check.check_data", check_data)
    result = run("data", "check", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "interrupted: no unfinished output was kept\n"


def test_a_closed_pipe_ends_a_command_quietly() -> None:
    command = f"{sys.executable} -m ssdir models | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_python_m_ssdir_calls_itself_ssdir() -> None:
    command = [sys.executable, "-m", "ssdir", "encode"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ssdir encode needs MODEL: ")


def test_export_reports_json(tiny_model_dir: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_model(model: object, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"1234")

    monkeypatch.setattr("ssdir.export.onnx.export_model", export_model)
    report = json.loads(ok("export", tiny_model_dir, "--out", out / "m.onnx", "--json").stdout)
    assert report == {"part": "encoder", "format": "onnx", "bytes": 4, "out": str(out / "m.onnx")}
    model = load_model(tiny_model_dir)
    assert isinstance(model, SSDIR)
    save_model(model.detector, out / "detector")
    assert "next: " not in ok("export", out / "detector", "--out", out / "detector.onnx").stdout
    assert "next: ssdir encode" in ok("export", tiny_model_dir, "--out", out / "n.onnx").stdout


def test_encode_says_what_it_runs_on(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    result = ok("encode", tiny_model_dir, photos, "--out", out / "o.parquet", "--device", "cpu")
    assert result.stdout.count("skipped, on cpu, ") == 1
