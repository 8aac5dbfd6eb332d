"""Ray's cluster: joined where there is one, started on this machine where there is none."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ssdir.errors import InputError

OBJECT_STORE_BYTES = 100 << 20
"""Shared memory of a cluster that is started here: nothing large goes through it, and Ray needs 75 MiB."""
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 15.0
"""Most seconds to wait for a connection to the address of a cluster, and for its answer."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # Under `uv run`, Ray would copy the working folder to every worker.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray would print on stdout which of its processes died.
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # A worker that has no GPU sees none.
}
_CLIENT, _CLIENT_PORT = "ray://", 10001
_WITHOUT = "start one by ray start --head, or leave out --address to use this machine alone"


@contextmanager
def ray_cluster(address: str | None, cpus: int | None) -> Iterator[Any]:
    """Joins a cluster, or starts one on this machine; leaves or ends it after the block.

    A cluster that the process has joined before is used, and kept.

    Args:
        address: `host:port`, `ray://host:port`, or `auto` for the cluster that this machine is part of; None takes
            the environment's `RAY_ADDRESS`, and without it starts a cluster.
        cpus: number of cores of a cluster that is started here; None takes the machine's.

    Yields:
        The module `ray`.

    Raises:
        InputError: if Ray is not installed, no cluster answers at the address, or none can be started.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if address is None or address == "local":
            _start(ray, cpus)
        else:
            _join(ray, address)
        # Ray ends the process without a word when it is terminated.
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Returns the module `ray`, whose processes will be silent.

    Raises:
        InputError: if it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: install it by pip install 'ssdir[ray]'") from None
    return ray


def _start(ray: Any, cpus: int | None) -> None:
    try:
        ray.init(
            "local", num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False, **_quiet()
        )
    except Exception as error:
        raise InputError(f"Ray can't be started on this machine: {_sentence(str(error))}") from error


def _join(ray: Any, address: str) -> None:
    if address != "auto":
        _check_listens(address)
    if not address.startswith(_CLIENT):
        _check_answers(address)
    try:
        with warnings.catch_warnings(action="ignore"):
            ray.init(address, **_quiet())
    except Exception as error:
        raise InputError(f"the Ray cluster at '{address}' can't be joined: {_sentence(str(error))}") from error


def _quiet() -> dict[str, Any]:
    """Returns options of `ray.init` that keep its messages, and those of its workers, off the terminal."""
    return {"log_to_driver": False, "logging_level": logging.CRITICAL}


def _check_listens(address: str) -> None:
    """Raises InputError unless something listens at an address."""
    is_client = address.startswith(_CLIENT)
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    if not colon and is_client:
        host, port = port, str(_CLIENT_PORT)
    if not host or not port.isdigit():
        raise InputError(f"'{address}' is no address of a Ray cluster: give auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"no Ray cluster is at '{address}' ({_sentence(reason)}): {_WITHOUT}") from None


def _check_answers(address: str) -> None:
    """Raises InputError unless a cluster is at an address.

    `ray.init` would try for minutes, and write a line each second.
    """
    asked = [sys.executable, "-m", "ray.scripts.scripts", "status"]
    if address != "auto":
        asked += ["--address", address]
    try:
        subprocess.run(asked, capture_output=True, timeout=ANSWER_SECONDS, check=True, text=True)
    except subprocess.TimeoutExpired:
        reason = f"no answer within {ANSWER_SECONDS:g} s"
    except subprocess.CalledProcessError as error:
        reason = _sentence(error.stderr.strip().rpartition("\n")[2].partition(": ")[2])
    else:
        return
    raise InputError(f"no Ray cluster is at '{address}' ({reason}): {_WITHOUT}")


def _sentence(text: str) -> str:
    """Returns the first sentence of an error's text, without its full stop."""
    return text.strip().partition("\n")[0].partition(". ")[0].rstrip(".")
