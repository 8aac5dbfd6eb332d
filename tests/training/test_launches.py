"""Processes that torchrun or SLURM starts connect, train and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from ssdir.documents import yaml_text
from ssdir.errors import InputError
from ssdir.training.fit import train
from ssdir.training.processes import _free_port, find_place
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.run_folder import TOKEN_FILE, has_ended

from .common import changed

IMPATIENT = """
import sys
from ssdir.training import processes
from ssdir.cli import main
processes.MEETING_SECONDS, processes.SHARED_SECONDS = 12.0, 1.0
sys.argv[0] = "ssdir"
main()
"""
"""The command, with processes that wait for each other for seconds, not for minutes."""


def start(program: list[str], arguments: list[str], **variables: str) -> subprocess.Popen[str]:
    alone = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment = {**alone, "OMP_NUM_THREADS": "1", **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*program, "train", *arguments, "--device", "cpu"], stdout=pipe, stderr=pipe, text=True, env=environment
    )


def slurm(node: int, job: int) -> dict[str, str]:
    """Returns the variables of a process that SLURM has started on one of two machines."""
    values = {"JOB_ID": job, "JOB_NAME": "test", "NTASKS": 2, "NNODES": 2, "PROCID": node, "LOCALID": 0}
    named = {f"SLURM_{name}": str(value) for name, value in {**values, "NODEID": node}.items()}
    return {**named, "SLURM_NODELIST": "127.0.0.1"}


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Returns the exit codes and errors of processes, which must end within two minutes."""
    outputs = [process.communicate(timeout=240) for process in processes]
    return [
        (process.returncode, "".join(line for line in text.splitlines() if line.startswith("error")))
        for process, (_, text) in zip(processes, outputs, strict=True)
    ]


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture
def arguments(recipe: Recipe, scattered: Path, tmp_path: Path) -> list[str]:
    short = changed(changed(recipe, "detector", epochs=1), "representation", epochs=1)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml_text(short.model_dump(mode="json")), encoding="utf-8")
    return [str(file), "--data", str(scattered)]


COMMAND = [sys.executable, "-m", "ssdir"]


@pytest.mark.slow
def test_all_launchers_train_the_same(arguments: list[str], tmp_path: Path) -> None:
    outs = {name: tmp_path / name for name in ("command", "slurm", "torchrun")}
    assert ends([start(COMMAND, [*arguments, "devices=2", "--out", str(outs["command"])])]) == [(0, "")]
    shared = [*arguments, "devices=1", "nodes=2", "--out"]
    pair = [start(COMMAND, [*shared, str(outs["slurm"])], **slurm(node, 3_333)) for node in range(2)]
    assert ends(pair) == [(0, ""), (0, "")]
    port = str(_free_port())
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    where = ["--master-addr=127.0.0.1", f"--master-port={port}", "-m", "ssdir"]
    agents = [[*agent, f"--node-rank={node}", *where] for node in range(2)]
    pair = [start(agent, [*shared, str(outs["torchrun"])]) for agent in agents]
    assert ends(pair) == [(0, ""), (0, "")]
    first, *others = (weights(out) for out in outs.values())
    for other in others:
        assert all(bool((other[name] == tensor).all()) for name, tensor in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_end_of_one_process_ends_the_other(lost: int, arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    long = [*arguments, "nodes=2", "detector.epochs=10000", "--out", str(out)]
    pair = [start(COMMAND, long, **slurm(node, 1_111 + lost)) for node in range(2)]
    while not (out / "detector" / "checkpoints" / "last.ckpt").exists() and pair[1 - lost].poll() is None:
        time.sleep(0.2)
    pair[lost].send_signal(signal.SIGKILL)
    began = time.monotonic()
    code, error = ends(pair)[1 - lost]
    assert time.monotonic() - began < 60
    assert code == 2
    assert "another process of this training has ended" in error
    assert "--resume" in error


@pytest.mark.slow
def test_processes_that_cannot_train_together_end(arguments: list[str], tmp_path: Path) -> None:
    (script := tmp_path / "impatient.py").write_text(IMPATIENT)
    impatient = [sys.executable, str(script)]
    alone = start(impatient, [*arguments, "nodes=2", "--out", str(tmp_path / "a")], **slurm(1, 2_222))
    assert "first process can't be reached at 127.0.0.1:17222" in ends([alone])[0][1]
    outs = [str(tmp_path / name) for name in ("b", "c")]
    pair = [
        start(impatient, [*arguments, "nodes=2", "--out", out], **slurm(i, 2_223)) for i, out in enumerate(outs)
    ]
    (first, error), (second, silent) = ends(pair)
    assert (first, second, silent) == (2, 2, "")
    assert "is not the folder that the first process sees" in error


def test_a_run_is_replaced_once_all_processes_have_come(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, short = tmp_path / "run", changed(recipe, "detector", epochs=1)
    train(short, scattered, out, stage="detector")
    (new := tmp_path / "new").mkdir()
    (new / TOKEN_FILE).touch()  # as if processes had met that could not train together
    monkeypatch.setattr("ssdir.training.processes.MEETING_SECONDS", 1.0)
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    for name, value in {**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}.items():
        monkeypatch.setenv(name, value)
    two = short.model_copy(update={"nodes": 2})
    for folder, options in ((out, {"force": True}), (new, {})):
        with pytest.raises(InputError, match="fewer than 2 processes came"):
            train(two, scattered, folder, stage="detector", **options)
    assert has_ended(out, "detector")
    assert not (new / "recipe.yaml").exists()


def test_launchers_start_as_many_processes_as_the_recipe_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    two = read_recipe("tiny", ["devices=2"])
    assert (find_place(two).count, find_place(two).started_by) == (2, "command")
    with pytest.raises(InputError, match="nodes=2, but this process was started on one machine alone"):
        find_place(read_recipe("tiny", ["nodes=2"]))
    for name, value in slurm(1, 1).items():
        monkeypatch.setenv(name, value)
    place = find_place(read_recipe("tiny", ["nodes=2"]))
    assert (place.rank, place.local_rank, place.node, place.started_by) == (1, 0, 1, "SLURM")
    assert find_place(read_recipe("tiny")).rank == 0, "each task of an array trains alone"
    with pytest.raises(InputError, match=r"SLURM has started 2 processes, .* devices=4 on nodes=2"):
        find_place(read_recipe("tiny", ["devices=4", "nodes=2"]))
    variables = {"TORCHELASTIC_RUN_ID": "1", "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "4"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"torchrun has started 4 processes, .* devices=1 on nodes=1"):
        find_place(read_recipe("tiny"))
