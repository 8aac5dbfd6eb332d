"""The processes of a training: who starts them, how they meet, and how all of them end when one does.

On one machine, the command starts the others itself. On several, `torchrun` or SLURM's `srun` starts all of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from uuid import uuid4

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from ssdir.console import warn
from ssdir.errors import EXIT_BAD_INPUT, InputError
from ssdir.ops.distributed import gather_values
from ssdir.training.recipe import Recipe
from ssdir.training.run_folder import TOKEN_FILE

MEETING_SECONDS, LOST_SECONDS, BEAT_SECONDS = 300.0, 60.0, 2.0
"""Seconds that processes wait for each other at the start; until a silent one is lost; between its signs."""

SHARED_SECONDS = 30.0
"""Seconds that processes on other machines look for the file `TOKEN_FILE` of the first."""


@dataclass(frozen=True)
class Place:
    """The place of this process among those of a training.

    Attributes:
        rank: its number.
        local_rank: its number among those of its machine.
        node: the number of its machine.
        count: the number of processes.
        started_by: `command` for those that this command starts, and for the only one.
    """

    rank: int
    local_rank: int
    node: int
    count: int
    started_by: Literal["command", "torchrun", "SLURM"]


def find_place(recipe: Recipe) -> Place:
    """Finds the place of this process, from the variables that its launcher has set.

    Raises:
        InputError: if the launcher has started another number of processes than the recipe asks for, or there is
            none and the recipe asks for several nodes.
    """
    count, env = recipe.devices * recipe.nodes, os.environ
    if distributed.is_torchelastic_launched():
        _check_count("torchrun", int(env["WORLD_SIZE"]), recipe)
        return Place(int(env["RANK"]), int(env["LOCAL_RANK"]), int(env.get("GROUP_RANK", 0)), count, "torchrun")
    if count == 1:
        return Place(0, 0, 0, 1, "command")
    if "SLURM_PROCID" in env and int(env.get("SLURM_NTASKS", 1)) > 1:
        _check_count("SLURM", int(env["SLURM_NTASKS"]), recipe)
        rank, local_rank, node = (int(env[f"SLURM_{name}"]) for name in ("PROCID", "LOCALID", "NODEID"))
        return Place(rank, local_rank, node, count, "SLURM")
    if recipe.nodes > 1:
        raise InputError(
            f"nodes={recipe.nodes}, but this process was started on one machine alone: start the command by "
            "torchrun or srun on all of them"
        )
    local_rank = int(env.get("LOCAL_RANK", 0))
    return Place(local_rank, local_rank, 0, count, "command")


def _check_count(launcher: str, started: int, recipe: Recipe) -> None:
    if started != recipe.devices * recipe.nodes:
        raise InputError(
            f"{launcher} has started {started} processes, but the recipe asks for devices={recipe.devices} on "
            f"nodes={recipe.nodes}: give devices and nodes whose product is {started}"
        )


@contextmanager
def met(place: Place, device_type: str) -> Iterator[None]:
    """Starts the other processes of this machine, if nobody else does, and lets all processes meet.

    Within the block, the end of one process ends the others.

    Raises:
        InputError: if not all processes come, or one of them ends.
    """
    if place.count == 1:
        yield
        return
    with _variables(place), _others(place) as others:
        watch = Watch(place, others)
        watch.start()
        try:
            _meet(place, device_type)
            watch.has_met = True
            yield
            distributed.barrier()
        except RuntimeError as error:
            if _is_loss(error):
                raise InputError(LOST) from error
            raise
        finally:
            watch.is_over.set()
            if distributed.is_initialized():
                distributed.destroy_process_group()


LOST = (
    "another process of this training has ended or can't be reached (it may say why): start all of them again, "
    "with --resume"
)


def _is_loss(error: RuntimeError) -> bool:
    """Returns whether an error is that of a connection to another process; gloo's have no class of their own."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower() or "NCCL" in str(error)


@contextmanager
def _variables(place: Place) -> Iterator[None]:
    """Sets the variables by which processes meet, and restores them."""
    found = {
        "RANK": place.rank,
        "LOCAL_RANK": place.local_rank,
        "NODE_RANK": place.node,
        "WORLD_SIZE": place.count,
    }
    variables = {name: str(value) for name, value in found.items()}
    if place.started_by == "SLURM":
        address = SLURMEnvironment.resolve_root_node_address(os.environ.get("SLURM_NODELIST", "127.0.0.1"))
        variables["MASTER_ADDR"] = os.environ.get("MASTER_ADDR", address)
        port = 15_000 + int(os.environ.get("SLURM_JOB_ID", "0")[-4:])  # The same for all, and others' jobs differ.
        variables["MASTER_PORT"] = os.environ.get("MASTER_PORT", str(port))
    elif place.started_by == "command" and place.rank == 0:
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def _others(place: Place) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Runs the same command in the other processes of the machine, if this one is the first, and ends them."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        if place.started_by == "command" and place.rank == 0:
            for rank in range(1, place.count):
                env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                started.append(subprocess.Popen(_same_command(), env=env))
        yield started
        for process in started:
            process.wait(LOST_SECONDS)
    finally:
        for process in started:
            process.kill()
            process.wait()


def _same_command() -> list[str]:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is None:
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    name = spec.name.removesuffix(".__main__")
    return [sys.executable, "-m", name, *sys.argv[1:]]


def _meet(place: Place, device_type: str) -> None:
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        limit = timedelta(seconds=MEETING_SECONDS)
        store, rank, count = next(rendezvous("env://", place.rank, place.count, timeout=limit))
        backend = distributed.get_default_backend_for_device(device_type)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        problem = (
            f"fewer than {place.count} processes came to {where}, or its port is taken: start all of them"
            if place.rank == 0
            else f"the first process can't be reached at {where}: start it, or give the right address"
        )
        raise InputError(f"{problem} (waited up to {MEETING_SECONDS:.0f} s)") from error


class Watch(threading.Thread):
    """Ends this process, with a sentence, once another one has ended or is silent, whatever it is waiting for.

    Between steps, processes wait for each other in calls that return after half an hour at the earliest.

    Args:
        place: of this process.
        others: processes that it has started.
    """

    def __init__(self, place: Place, others: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(name="ssdir-watch", daemon=True)
        self.place, self.others, self.has_met, self.is_over = place, others, False, threading.Event()
        self.store: TCPStore | None = None
        self.beats: dict[int, tuple[int, float]] = {}

    def run(self) -> None:
        """Looks every two seconds."""
        while not self.is_over.wait(BEAT_SECONDS):
            if self._is_alone() and not self.is_over.wait(2 * BEAT_SECONDS):
                warn(f"error: {LOST}")
                for process in self.others:
                    process.kill()
                os._exit(EXIT_BAD_INPUT)

    def _is_alone(self) -> bool:
        """Returns whether another process is lost."""
        if any(process.poll() for process in self.others):
            return True
        if not self.has_met:
            return False
        try:
            return self._is_silent()
        except RuntimeError:  # The first process keeps the store.
            return True

    def _is_silent(self) -> bool:
        """Gives a sign, and returns whether another process has given none for long."""
        if self.store is None:
            # A connection of its own: the training's may be waiting.
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self.store = TCPStore(address, port, is_master=False, wait_for_workers=False)
        self.store.add(f"ssdir/{self.place.rank}", 1)
        now = time.monotonic()
        for rank in range(self.place.count):
            beat = self.store.add(f"ssdir/{rank}", 0)
            if self.beats.get(rank, (-1, 0.0))[0] != beat:
                self.beats[rank] = (beat, now)
        return any(now - seen > LOST_SECONDS for _, seen in self.beats.values())


def agree(place: Place, out: Path, data: str | None, problem: InputError | None) -> None:
    """Checks that all processes can train together; the first one says why not, and the others end silently.

    Args:
        place: of this process.
        out: the run's folder.
        data: the fingerprints of the data, as this process reads them; None where there is a problem.
        problem: what is wrong for this process.

    Raises:
        InputError: in the first process, if any process has a problem, doesn't see the folder of the first, or has
            other data.
    """
    _raise_first(place, None if problem is None else str(problem))
    token = uuid4().hex
    if place.rank == 0:
        (out / TOKEN_FILE).write_text(token, encoding="utf-8")
    token, wanted = gather_values((token, data))[0]
    reason = None
    if not _sees(out / TOKEN_FILE, token):
        reason = f"'{out}' is not the folder that the first process sees: put it on a file system that all share"
    elif data != wanted:
        reason = "the data are not those of the first process: give all the same --data"
    _raise_first(place, reason)
    if place.rank == 0:
        (out / TOKEN_FILE).unlink(missing_ok=True)


def _sees(file: Path, content: str) -> bool:
    """Returns whether a file with this content appears; network file systems show new files a little later."""
    until = time.monotonic() + SHARED_SECONDS
    while True:
        try:
            if file.read_text(encoding="utf-8") == content:
                return True
        except OSError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.2)


def _raise_first(place: Place, problem: str | None) -> None:
    """Ends all processes if one of them has a problem."""
    problems = gather_values((socket.gethostname(), problem))
    for rank, (host, text) in enumerate(problems):
        if text is not None:
            if place.rank:
                raise SystemExit(EXIT_BAD_INPUT)
            raise InputError(text if rank == 0 else f"process {rank}, on {host}: {text}")
