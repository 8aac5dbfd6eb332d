"""Requests to the studio's server: it answers the page's requests, and refuses all others."""

import io
import json
import os
import socket
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.conftest import Running, start

pytestmark = pytest.mark.slow

pytest.importorskip("gradio", reason="the studio needs gradio")


def fetch(address: str, body: Any = None, **headers: str) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address, data, {"Content-Type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def test_files_of_this_machine_are_not_served(running: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("a secret")
    beside = running.connections
    for path in (secret, beside, Path("/etc/passwd")):
        for route in (f"/gradio_api/file={path}", f"/file={path}", f"/static/..{path}", f"/assets/../..{path}"):
            status, text = fetch(running.address + route)
            assert status in (403, 404), route
            assert "a secret" not in text
            assert "root:" not in text


def call(
    running: Running, function: dict[str, Any], data: list[Any], event: Any = None, session: str | None = None
) -> str:
    """Calls a function as the page does; returns the whole answer."""
    session = session or uuid.uuid4().hex
    event = {"row": 0} if event is None else event
    body = {"data": data, "fn_index": function["id"], "session_hash": session, "event_data": event}
    if function["queue"] is False:
        return fetch(running.address + "/gradio_api/run/predict", body)[1]
    status, text = fetch(running.address + "/gradio_api/queue/join", body)
    if status != 200:
        return text
    answer = []
    with urllib.request.urlopen(
        f"{running.address}/gradio_api/queue/data?session_hash={session}", timeout=30
    ) as stream:
        for line in stream:
            answer.append(line.decode())
            if "process_completed" in answer[-1] or "unexpected_error" in answer[-1]:
                break
    return "".join(answer)


def functions_with_inputs(running: Running) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns all functions with inputs, and the one that takes a picture."""
    config = json.loads(fetch(running.address + "/config")[1])
    files = {part["id"] for part in config["components"] if part["type"] == "file"}
    taking = [each for each in config["dependencies"] if files & set(each["inputs"])]
    assert len(taking) == 1
    return [each for each in config["dependencies"] if each["inputs"]], taking[0]


def file_named(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "picture.png"}


def test_no_component_takes_a_file_or_an_address_that_a_request_names(running: Running, tmp_path: Path) -> None:
    """Even a slider that is sent a file would have it copied to where it is served."""
    secret = f"secret-{uuid.uuid4().hex}.png"
    Image.new("RGB", (32, 32), "red").save(tmp_path / secret)
    functions, _ = functions_with_inputs(running)
    config = json.loads(fetch(running.address + "/config")[1])
    # What a request names as the window's state is not read; a sample is opened without more.
    states = {part["id"] for part in config["components"] if part["type"] == "state"}
    functions = [each for each in functions if set(each["inputs"]) - states]
    assert len(functions) > 10
    for named in (str(tmp_path / secret), "http://192.0.2.1/picture.png"):
        for function in functions:
            assert "data:image" not in call(running, function, [file_named(named)] * len(function["inputs"]))
    assert secret not in [path.name for path in running.uploads()]
    assert "192.0.2.1" not in running.connections.read_text()


def test_an_uploaded_picture_is_opened(running: Running) -> None:
    """A valid upload by the same request is opened, so the refusals above are not for a mistake in the request."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    uploaded = json.loads(upload(running, buffer.getvalue()))[0]
    _, taking = functions_with_inputs(running)
    assert "data:image" in call(running, taking, [file_named(uploaded), None])


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"<svg/>", b"[" * 9999])
def test_an_upload_that_is_no_picture_is_one_sentence(running: Running, content: bytes) -> None:
    uploaded = json.loads(upload(running, content))[0]
    _, taking = functions_with_inputs(running)
    answer = call(running, taking, [file_named(uploaded), None])
    assert "Not opened" in answer
    assert "picture.png" in answer
    assert "ssdir-studio-" not in answer, "the answer does not reveal the folder"


NONSENSE: list[Any] = [
    [],
    "x",
    7,
    {"row": True},
    {"row": 1e999},
    {"row": -1},
    {"row": 0, "z_where": 3, "sent": "x"},
]
NONSENSE += [{"row": 0, "name": [], "sent": float("nan"), "z_where": [float("nan")] * 4}, {"row": 10**400}]


def test_events_of_nonsense_change_nothing_and_end_nothing(running: Running) -> None:
    """A picture is open, so that the events reach the scene."""
    functions, _ = functions_with_inputs(running)
    config = json.loads(fetch(running.address + "/config")[1])
    loading = next(each for each in config["dependencies"] if ["load"] in [part[1:] for part in each["targets"]])
    session = uuid.uuid4().hex
    assert "data:image" in call(running, loading, [], session=session)
    for function in functions:
        for event in NONSENSE:
            call(running, function, [event] * len(function["inputs"]), event, session)
            call(running, function, [None] * len(function["inputs"]), event, session)
    # Gradio's own parts complain of what they are sent; none of it comes as far as an error of the studio.
    printed = running.log.read_text()
    assert f"ssdir{os.sep}studio{os.sep}" not in printed
    assert "didn't return enough output values" not in printed
    assert "data:image" in call(running, loading, [])


def upload(running: Running, content: bytes, **headers: str) -> str:
    head = b'--limit\r\nContent-Disposition: form-data; name="files"; filename="picture.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}
    body = head + content + b"\r\n--limit--\r\n"
    request = urllib.request.Request(running.address + "/gradio_api/upload", body, kind | headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def test_no_function_is_offered_to_programs(running: Running) -> None:
    offered = json.loads(fetch(running.address + "/gradio_api/info")[1])
    assert offered == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_other_host_names_are_refused_and_the_content_policy_forbids_other_hosts(running: Running) -> None:
    assert fetch(running.address, Host="evil.example")[0] == 400
    with urllib.request.urlopen(running.address, timeout=30) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    port = int(running.address.rsplit(":", 1)[1])
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", port)) != 0, "only 127.0.0.1 is listened on"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_other_sites_can_send_nothing(running: Running, origin: str) -> None:
    before = running.uploads()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        upload(running, b"theirs", Origin=origin)
    assert running.uploads() == before
    for own in (running.address, running.address.replace("127.0.0.1", "localhost")):
        upload(running, b"one's own", Origin=own, Host=own.removeprefix("http://"))


def test_before_an_image_is_open_buttons_report_it(running: Running) -> None:
    functions, _ = functions_with_inputs(running)
    config = json.loads(fetch(running.address + "/config")[1])
    states = [part["id"] for part in config["components"] if part["type"] == "state"]
    on_a_picture = [each for each in functions if len(each["inputs"]) == 1 and each["inputs"][0] in states]
    samples = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "samples")
    on_a_picture = [each for each in on_a_picture if samples not in [target[0] for target in each["targets"]]]
    assert len(on_a_picture) > 10
    for function in on_a_picture:
        assert "still being opened" in call(running, function, [None])


def test_large_uploads_are_refused(running: Running) -> None:
    before = running.uploads()
    with pytest.raises(urllib.error.URLError) as refused:
        upload(running, bytes(26 * 2**20))
    # The server may close the connection before it has read everything.
    assert isinstance(refused.value.reason, OSError) or getattr(refused.value, "code", None) == 413
    assert running.uploads() == before
    assert fetch(running.address)[0] == 200


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    studio = start(tmp_path, "tiny-digits")
    printed = studio.stop().splitlines()
    beginnings = [
        *("studio: http://127.0.0.1:", "loading Python packages", "loading the model tiny-digits"),
        *("detecting objects", "mapping the objects", "the studio is open, after ", "the studio is closed"),
    ]
    assert [line.startswith(expected) for line, expected in zip(printed, beginnings, strict=True)] == [True] * 7
    assert studio.process.returncode == 0
