"""Storages for tests: an S3 server in this process, and files in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssdir import storage


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Yields the address of an S3 server on this machine."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_access(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yields the server's address, with the address and credentials in the environment, as for a user."""
    access = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    use_environment(monkeypatch, AWS_ENDPOINT_URL=s3_server, **access)
    yield s3_server
    storage._filesystem.cache_clear()


def use_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Sets variables, unsets those that are empty, and has file systems made anew."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    storage._filesystem.cache_clear()


@pytest.fixture
def s3_bucket(s3_access: str) -> str:
    """Returns the URI of an empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    storage.filesystem_of(f"s3://{name}")[0].mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def memory_folder() -> str:
    """Returns the URI of an empty folder in memory."""
    return f"memory://{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["local", "memory", "s3"])
def any_folder(request: pytest.FixtureRequest, tmp_path: Path) -> storage.Location:
    """Returns an empty folder: on this machine, in memory, or in S3."""
    if request.param == "local":
        return tmp_path / "folder"
    return str(request.getfixturevalue("memory_folder" if request.param == "memory" else "s3_bucket"))
