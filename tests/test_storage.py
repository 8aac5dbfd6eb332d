"""Files on this machine and in other storages are handled alike, with errors of one sentence."""

from __future__ import annotations

import http.server
import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdir import storage
from ssdir.errors import InputError, UnreachableError
from ssdir.storage import Location, join
from storages import use_environment


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    path = tmp_path / "a b#1 ä.png"
    assert storage.to_location(path.as_uri()) == path
    assert storage.to_location(f"file://localhost{path.as_posix()}") == path
    assert storage.to_location("file:///C:/images/a.png") == Path("C:/images/a.png")
    assert storage.to_location("a.png") == Path("a.png")
    assert storage.to_location("s3://bucket/a%20b.png") == "s3://bucket/a%20b.png"
    with pytest.raises(InputError, match="names the machine 'images'"):
        storage.to_location("file://images/a.png")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a", True),
        ("HTTPS://host", True),
        ("a/b", False),
        ("C:/a", False),
        ("C://a", False),
        ("a:b", False),
    ],
)
def test_uris_are_distinguished_from_paths(text: str, expected: bool) -> None:
    assert storage.is_uri(text) is expected


def test_names_of_locations() -> None:
    assert storage.pure_path("https://host/a/b.JPG?signed=x.png#y").name == "b.JPG"
    assert storage.pure_path("https://host/a/b.mkv?signed#frame=12").name == "b.mkv#frame=12"
    assert storage.pure_path("s3://bucket/a/b?c.png").parts == ("bucket", "a", "b?c.png")
    assert storage.absolute("s3://bucket/a") == "s3://bucket/a"
    assert storage.absolute(Path("a")) == Path.cwd() / "a"


def test_files_are_written_listed_and_read(any_folder: Location) -> None:
    assert not storage.exists(join(any_folder, "a.bin"))
    assert storage.list_files(any_folder) == []
    for name in ("b.bin", "a.bin", "below/c.bin"):
        storage.write_bytes(join(any_folder, name), name.encode())
    storage.write_bytes(join(any_folder, "a.bin"), b"again")
    assert storage.list_files(any_folder) == [join(any_folder, "a.bin"), join(any_folder, "b.bin")]
    assert storage.read_bytes(join(any_folder, "a.bin")) == b"again"
    assert storage.exists(join(any_folder, "below"))
    assert storage.is_folder(join(any_folder, "below"))
    assert storage.is_file(join(any_folder, "below/c.bin"))
    assert not storage.is_file(join(any_folder, "below"))
    with storage.open_file(join(any_folder, "b.bin")) as file:
        file.seek(2)
        assert file.read() == b"bin"
    for missing in (storage.read_bytes, storage.open_file):
        with pytest.raises(InputError, match="/none' does not exist"):
            missing(join(any_folder, "none"))


def test_an_interrupted_file_does_not_appear(memory_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFile

    def write_half(file: Any, data: bytes) -> None:
        io.BytesIO.write(file, data[: len(data) // 2])
        raise KeyboardInterrupt

    old, new = join(memory_folder, "old.bin"), join(memory_folder, "new.bin")
    storage.write_bytes(old, b"before")
    monkeypatch.setattr(MemoryFile, "write", write_half, raising=False)
    for location in (old, new):
        with pytest.raises(KeyboardInterrupt):
            storage.write_bytes(location, b"afterwards")
    assert storage.list_files(memory_folder) == [old]
    assert storage.read_bytes(old) == b"before"


@pytest.mark.parametrize("name", ["run[1]", "run?", "run*"])
def test_a_name_that_may_be_a_pattern_changes_no_other_file(name: str, memory_folder: str, s3_bucket: str) -> None:
    for folder in (memory_folder, s3_bucket):
        other = f"{folder}/run1/a.bin"
        storage.write_bytes(other, b"other")
        with pytest.raises(InputError, match=r"can't be removed: choose a name without \*, \? and \["):
            storage.remove([f"{folder}/{name}/a.bin"])
        with pytest.raises(InputError, match=r"can't be written: choose a name without \*, \? and \["):
            storage.write_bytes(f"{folder}/{name}/a.bin", b"new")
        assert storage.list_below(folder) == [other]


def test_what_lies_below_a_folder_comes_in_the_order_of_local_paths(
    memory_folder: str, s3_bucket: str, tmp_path: Path
) -> None:
    names = ["a/b.png", "a-b/c.png", "a.png", "a/b/d.png", "a/B.png"]
    expected = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path / name for name in names)]
    for folder in (memory_folder, s3_bucket):
        for name in names:
            storage.write_bytes(f"{folder}/{name}", b"x")
        assert storage.list_below(folder) == [f"{folder}/{name}" for name in expected]
        assert storage.list_below(f"{folder}/") == storage.list_below(folder)
        one_below = [f"{folder}/{name}" for name in expected if name.count("/") == 1]
        assert storage.matches(f"{folder}/a*/*.png") == [(uri, False) for uri in one_below]
        assert storage.matches(f"{folder}/a*")[0] == (f"{folder}/a", True)
        assert storage.list_below(f"{folder}/none") == storage.matches(f"{folder}/none/*.png") == []


def test_what_another_process_wrote_is_seen(s3_bucket: str) -> None:
    import s3fs

    other = s3fs.S3FileSystem(skip_instance_cache=True)
    for names in (["a"], ["a", "b"]):
        other.pipe_file(f"{s3_bucket}/folder/{names[-1]}", b"x")
        expected = [f"{s3_bucket}/folder/{name}" for name in names]
        assert storage.list_files(f"{s3_bucket}/folder") == storage.list_below(s3_bucket) == expected
        assert storage.matches(f"{s3_bucket}/folder/*") == [(uri, False) for uri in expected]
        assert [storage.exists(f"{s3_bucket}/folder/{name}") for name in "ab"] == [True, "b" in names]


def test_parquet_files_are_read_in_place(any_folder: Location, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "x.parquet", row_group_size=100)
    storage.write_bytes(join(any_folder, "x.parquet"), (tmp_path / "x.parquet").read_bytes())
    with storage.open_file(join(any_folder, "x.parquet")) as file:
        assert pq.ParquetFile(file).read_row_group(7).column("x").to_pylist() == [*range(700, 800)]


def test_threads_share_a_file_system(memory_folder: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        seen = [*pool.map(lambda _: storage.filesystem_of(memory_folder)[0], range(9))]
    assert len({id(filesystem) for filesystem in seen}) == 1


# Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("nope://a/b.png", "nope:// is no kind of storage that fsspec knows"),
        ("gs://bucket/a.png", r"gs:// needs a package that is not installed \(pip install gcsfs\)"),
    ],
)
def test_unknown_and_missing_file_systems(uri: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    storage._filesystem.cache_clear()
    for act in (storage.read_bytes, storage.exists, storage.list_files, storage.open_file):
        with pytest.raises(UnreachableError, match=f"'{uri}' can't be opened: {problem}"):
            act(uri)


def test_a_missing_bucket(s3_access: str) -> None:
    assert storage.list_files("s3://no-such-bucket/a") == []
    assert not storage.exists("s3://no-such-bucket/a")
    with pytest.raises(InputError, match=r"'s3://no-such-bucket/a' does not exist \(no such bucket\)"):
        storage.read_bytes("s3://no-such-bucket/a")
    with pytest.raises(InputError, match=r"'s3://no-such-bucket/a' does not exist \(no such bucket\)"):
        storage.write_bytes("s3://no-such-bucket/a", b"x")


def test_no_credentials(s3_access: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    use_environment(monkeypatch, **nothing)
    for act in (storage.read_bytes, storage.exists, storage.list_files):
        with pytest.raises(UnreachableError, match=r"no credentials were found \(set AWS_PROFILE, or"):
            act("s3://bucket/a.png")


@pytest.mark.parametrize(
    ("code", "error", "problem"),
    [
        ("AccessDenied", InputError, r"may not be read \(access denied: check the credentials\)"),
        ("InvalidAccessKeyId", UnreachableError, "the credentials are not valid"),
        ("ExpiredToken", UnreachableError, "the credentials are not valid"),
        ("InternalError", UnreachableError, "the server fails or is overloaded"),
    ],
)
def test_refusals(
    code: str, error: type[InputError], problem: str, s3_access: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    with answering(500 if code == "InternalError" else 403, body) as (address, _):
        use_environment(monkeypatch, AWS_ENDPOINT_URL=address)
        with pytest.raises(error, match=f"^'s3://bucket/a.png' .*{problem}") as raised:
            storage.read_bytes("s3://bucket/a.png")
    assert type(raised.value) is error


def test_an_endpoint_that_is_not_there_ends_in_time(s3_access: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    use_environment(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"can't be reached: check the endpoint or the network \("):
        storage.read_bytes("s3://bucket/a.png")
    assert time.monotonic() - started < 20


def test_web_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with answering(200, b"content") as (address, _):
        assert storage.read_bytes(f"{address}/a.png?size=2") == b"content"
    for status, problem, requests in ((404, "does not exist", 1), (403, "may not be read", 1), (503, "503", 3)):
        with answering(status, b"") as (address, seen):
            with pytest.raises(InputError, match=problem) as raised:
                storage.read_bytes(f"{address}/a.png")
            assert type(raised.value) is InputError, "other web addresses may be read"
            assert len(seen) == requests
    with pytest.raises(InputError, match="can't be reached: check the address") as raised:
        storage.read_bytes(f"http://127.0.0.1:{free_port()}/a.png")
    assert type(raised.value) is InputError


def test_an_image_in_s3_needs_one_request(s3_access: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b"content") as (address, seen):
        use_environment(monkeypatch, AWS_ENDPOINT_URL=address)
        assert storage.read_bytes("s3://bucket/a.png") == b"content"
    assert len(seen) == 1


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class answering:
    """A web server that answers everything in one way; yields its address and the requests that came."""

    def __init__(self, status: int, body: bytes) -> None:
        seen: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server, self._seen = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler), seen
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> tuple[str, list[str]]:
        return f"http://127.0.0.1:{self._server.server_address[1]}", self._seen

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
