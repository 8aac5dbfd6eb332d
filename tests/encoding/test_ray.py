"""Encoding by Ray's workers gives the same rows as without them, whatever process is killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from command_line import refused
from ssdir.console import no_progress
from ssdir.encoding import ray_cluster, ray_engine
from ssdir.encoding.encode import encode_images
from ssdir.encoding.job import EncodingJob
from ssdir.encoding.local import JobProgress
from ssdir.encoding.options import EncodeOptions
from ssdir.encoding.ray_engine import RayWorkers, encode_parts_by_ray
from ssdir.errors import InputError, InputWarning
from ssdir.store.folder import numbered_files, part_name, read_manifest
from ssdir.store.objects_file import read_stored
from ssdir.store.skipped import read_skipped

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssdir[ray]'")
IN_PARTS = EncodeOptions(batch_size=4, score_threshold=0.7, images_per_part=8)
STORE_BYTES = 80 << 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes 120 images, of which every tenth is damaged."""
    folder = tmp_path_factory.mktemp("ray") / "images"
    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((10, 10, 1), dtype=np.uint8))
    for number in range(120):
        file = folder / f"{number:03d}.png"
        Image.fromarray(np.roll(picture, 3 * number, axis=1)).save(file)
        if number % 10 == 4:
            file.write_bytes(file.read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tiny_model_dir: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder that one process has encoded without disturbance."""
    out = tmp_path_factory.mktemp("ray") / "undisturbed"
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    return out


class Machines:
    """A cluster of two machines of one core each, which are processes of this one, and a head without cores."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        about = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args=about)
        self.nodes = [self.add(), self.add()]
        self.workers = RayWorkers(self.cluster.address)

    def add(self, **about: Any) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, **about)

    def kill_one(self) -> None:
        self.nodes.pop(0).all_processes["raylet"][0].process.kill()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    machines = Machines()
    yield machines
    machines.cluster.shutdown()


def worker_processes() -> list[psutil.Process]:
    """Returns the processes of workers that are encoding."""
    return [process for process in psutil.process_iter(["cmdline"]) if is_worker(process.info["cmdline"])]


def is_worker(command: list[str] | None) -> bool:
    return bool(command) and "_Worker.encode" in command[0]


def once(done: int, action: Callable[[], object]) -> Callable[..., None]:
    """Returns a receiver of progress that acts in a thread when so many images are done."""
    threads: list[threading.Thread] = []

    def report(images: int, total: int, stage: str | None = None) -> None:
        if images >= done and not threads:
            threads.append(threading.Thread(target=action))
            threads[0].start()

    return report


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Asserts that rows, parts, metadata and the list of skipped images are the same."""
    names = [sorted(path.name for path in each.glob("part-*")) for each in (folder, undisturbed)]
    assert names[0] == names[1]
    for name in names[0]:
        assert read_stored(folder / name).table.equals(read_stored(undisturbed / name).table, check_metadata=True)
    assert read_skipped(folder) == read_skipped(undisturbed)
    assert not list(folder.glob(".*-part-*"))


def test_rows_are_those_of_one_process(
    tiny_model_dir: Path, images: Path, undisturbed: Path, machines: Machines, out: Path
) -> None:
    encoded = encode_images(str(tiny_model_dir), [images], out, IN_PARTS, workers=machines.workers)
    assert_same(out, undisturbed)
    assert encoded.images == 108
    assert encoded.skipped_images == len(read_skipped(out)) == 12
    assert not ray.is_initialized()


def test_killed_workers_and_machines_lose_nothing(
    tiny_model_dir: Path, images: Path, undisturbed: Path, machines: Machines, out: Path
) -> None:
    dead: list[int] = []

    def kill_worker() -> None:
        end = time.monotonic() + 30
        # A worker has another name while it is between two parts.
        while not (workers := worker_processes()) and time.monotonic() < end:
            time.sleep(0.02)
        workers[0].kill()
        dead.append(workers[0].pid)

    first, second = once(8, kill_worker), once(56, machines.kill_one)

    def kill_both(done: int, total: int, stage: str | None = None) -> None:
        first(done, total)
        second(done, total)

    encode_images(str(tiny_model_dir), [images], out, IN_PARTS, on_progress=kill_both, workers=machines.workers)
    assert_same(out, undisturbed)
    assert dead
    assert len(machines.nodes) == 1
    machines.nodes.append(machines.add())


class Troubled(EncodingJob):
    """A job whose part 1 fails once for each letter of the folder's file `.trouble`.

    The letter `k` kills the worker, and any other one raises an error.
    """

    def part(self, number: int) -> Path:
        left = Path(str(self.folder)) / ".trouble"
        if number == 1 and (letters := left.read_text()):
            left.write_text(letters[1:])
            if letters[0] == "k":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the disk had a bad moment")
        return super().part(number)


def encode_troubled(trouble: str, undisturbed: Path, out: Path, machines: Machines) -> list[str]:
    """Encodes the first parts of a job with trouble; returns those that were written."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    out.mkdir()
    shutil.copytree(undisturbed / "_images", out / "_images")
    (out / ".trouble").write_text(trouble)
    manifest = read_manifest(undisturbed)
    assert manifest is not None
    job = Troubled(out, manifest, IN_PARTS)
    encode_parts_by_ray(job, range(3), machines.workers, JobProgress(job, range(3), "cpu", no_progress))
    return sorted(written(out))


def test_trouble_that_passes_is_survived(undisturbed: Path, out: Path, machines: Machines) -> None:
    assert encode_troubled("ek", undisturbed, out, machines) == [part_name(number) for number in range(3)]


def test_a_part_that_always_ends_its_worker_is_given_up(
    undisturbed: Path, out: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "MOST_ATTEMPTS", 2)
    with pytest.raises(ChildProcessError, match="the last while encoding part 1: the same command goes on"):
        encode_troubled("kkkk", undisturbed, out, machines)
    assert (out / ".trouble").read_text() == "kk"
    assert not psutil.wait_procs(worker_processes(), 10)[1]


def test_an_error_of_a_worker_is_raised_after_some_attempts(
    undisturbed: Path, out: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "MOST_ATTEMPTS", 2)
    with pytest.raises(OSError, match="the disk had a bad moment"):
        encode_troubled("eeee", undisturbed, out, machines)
    assert (out / ".trouble").read_text() == "ee"


def encode_command(model: Path, images: Path, out: Path, *further: str) -> list[str]:
    how = ["--score-threshold", "0.7", "--batch-size", "1", "--images-per-part", "1"]
    return [sys.executable, "-m", "ssdir", "encode", str(model), str(images), "--out", str(out), *how, *further]


def written(out: Path) -> dict[str, int]:
    """Returns the parts that are there, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that are started do not ignore Ctrl-C, as those of a shell's background jobs do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_killed_command_goes_on(tiny_model_dir: Path, images: Path, out: Path) -> None:
    """The command is killed, interrupted by Ctrl-C, and then ends; no process of Ray survives it."""
    by_ray = encode_command(tiny_model_dir, images, out / "parts", "--engine", "ray", "--workers", "2")
    before: dict[str, int] = {}
    for kind, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        command = psutil.Popen(by_ray, start_new_session=True, stderr=subprocess.PIPE, text=True)
        processes: list[psutil.Process] = []
        # A worker has another name while it is between two tasks.
        while len(written(out / "parts")) == len(before) or not any(
            is_worker(each.cmdline()) for each in processes
        ):
            assert command.poll() is None
            time.sleep(0.02)
            processes = command.children(recursive=True)
        # A terminal sends Ctrl-C to all of its processes.
        (os.killpg if kind == signal.SIGINT else os.kill)(command.pid, kind)
        errors = command.communicate(timeout=60)[1]
        assert command.returncode == code, errors
        alive = psutil.wait_procs(processes, 20 if kind == signal.SIGKILL else 0)[1]
        # Ray's agents notice only after a minute that the process that they belong to was killed.
        assert not [process for process in alive if not (kind == signal.SIGKILL and "Agent" in process.name())]
        assert len(before) < len(written(out / "parts")) < 120
        assert before.items() <= written(out / "parts").items()
        before = written(out / "parts")
    assert errors.splitlines()[-1].startswith("interrupted")
    assert f"{len(before)} of 120 parts are kept in" in errors
    assert "the same command goes on" in errors
    last = subprocess.run(by_ray, capture_output=True, text=True, check=True)
    assert before.items() <= written(out / "parts").items()
    subprocess.run(encode_command(tiny_model_dir, images, out / "plain"), capture_output=True, check=True)
    assert_same(out / "parts", out / "plain")
    assert last.stdout.startswith("108 images")
    assert [line for line in last.stderr.splitlines() if not line.startswith("skipped: ")] == []


def test_addresses_without_a_cluster_are_refused(
    tiny_model_dir: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
        closed.close()
        reasons = {
            f"127.0.0.1:{free}": "no Ray cluster is at '127.0.0.1",
            f"127.0.0.1:{silent.getsockname()[1]}": "no answer within 3 s",
            f"ray://127.0.0.1:{free}": "no Ray cluster is at 'ray://",
            "cluster": "'cluster' is no address",
        }
        for address, reason in reasons.items():
            how = ("--out", out, "--engine", "ray", "--address", address)
            assert reason in refused("encode", tiny_model_dir, images, *how)
            assert not numbered_files(out)


def test_parts_of_another_model_are_kept(
    tiny_model_dir: Path, agnostic_model_dir: Path, images: Path, undisturbed: Path
) -> None:
    before = written(undisturbed)
    with pytest.raises(InputError, match="holds an encoding by another model"):
        encode_images(str(agnostic_model_dir), [images], undisturbed, IN_PARTS, workers=RayWorkers())
    assert written(undisturbed) == before


def test_a_model_that_has_changed_is_refused(
    agnostic_model_dir: Path, undisturbed: Path, out: Path, machines: Machines
) -> None:
    """A machine of the cluster may have other weights at the same path."""
    manifest = read_manifest(undisturbed)
    assert manifest is not None
    job = EncodingJob(out, manifest.model_copy(update={"model": str(agnostic_model_dir)}), IN_PARTS)
    with pytest.raises(InputError, match=r"has other weights \(a worker on "):
        encode_parts_by_ray(job, range(3), machines.workers, JobProgress(job, range(3), "cpu", no_progress))


class FakeRay:
    """A cluster of one machine with 4 cores, and one with 16 and 2 GPUs."""

    def nodes(self) -> list[dict[str, Any]]:
        small, large = {"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}
        return [{"Alive": True, "Resources": each} for each in (small, large)] + [
            {"Alive": False, "Resources": large}
        ]


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"), [(1, 0, 20), (3, 0, 6), (1, 1, 2), (1, 0.5, 4), (8, 0.25, 2)]
)
def test_workers_are_as_many_as_there_is_room_for(cpus: int, gpus: float, expected: int) -> None:
    assert ray_engine._number_of_workers(RayWorkers(cpus_per_worker=cpus), gpus, FakeRay()) == expected


def test_too_many_workers_are_warned_of_and_too_large_ones_refused() -> None:
    with pytest.warns(InputWarning, match="room for 2 of 3 workers with 8 cores"):
        assert ray_engine._number_of_workers(RayWorkers(None, 3, 8), 0, FakeRay()) == 3
    with pytest.raises(InputError, match="no machine with 32 cores"):
        ray_engine._number_of_workers(RayWorkers(cpus_per_worker=32), 0, FakeRay())


def test_without_ray_the_command_names_what_to_install(
    tiny_model_dir: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'ssdir[ray]'" in refused("encode", tiny_model_dir, images, "--out", out, "--engine", "ray")
