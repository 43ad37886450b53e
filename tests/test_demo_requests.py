"""The demo refuses requests that its page would not send, and leaves no files behind."""

import asyncio
import contextlib
import http.server
import importlib.util
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, MutableMapping
from typing import Any
from unittest import mock

import command_line
import jpegs
import pytest
import starlette.requests
from demo_server import Server, file, serving
from etils import epath
from test_image_formats import PIXELS, encoded

pytest.importorskip("gradio", reason="requirements-demo.txt is not installed")

from PIL import Image  # noqa: E402

from cifar_jax.data import images
from cifar_jax.demo import uploads
from cifar_jax.errors import UserError

pytestmark = pytest.mark.slow

PICTURE = encoded(Image.fromarray(PIXELS), "PNG")
UPLOAD, CLEAR, SELECT = range(3)  # the page's functions
NOT_A_FILE = (403, b"not a file of this page")
NOT_A_PART = (404, b"not part of this page")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(finished: epath.Path, temporary: pathlib.Path):
    """A demo. When its terminal is gone it must exit cleanly, silently, and leave no files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with serving(f"--workdir={finished}", end=signal.SIGHUP) as (url, _):
            yield Server(url)
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def ours(server: Server, temporary: pathlib.Path) -> pathlib.Path:
    """The directory of uploads."""
    (directory,) = temporary.iterdir()
    return directory


def shown(server: Server) -> str:
    """The page's message and the number of classes that have a probability."""
    _, message, answer, *_ = server.answers()
    return f"{message} {answer.count('<meter')}"


# ---------------------------------------------------------------------------- files
def test_an_upload_is_answered_and_can_be_fetched(server: Server, ours: pathlib.Path):
    path = server.uploaded("a picture.png", PICTURE)
    assert pathlib.Path(path).parent.parent == ours
    quoted = urllib.parse.quote(path)
    assert server.ask(f"/gradio_api/file={quoted}") == (200, PICTURE)
    assert server.ask(f"/gradio_api/file={quoted}", Range="bytes=0-3") == (206, PICTURE[:4])
    assert server.call(UPLOAD, [file(path)])[0] == 200
    assert shown(server) == '<p role="status"></p> 10'


def test_a_file_that_a_browser_may_be_reading_is_never_written(server: Server, ours: pathlib.Path):
    with contextlib.ExitStack() as stack:
        for function, pictures, more in 2 * [
            (SELECT, [], {"event_data": {"index": 0}}),
            (UPLOAD, [PICTURE], {}),
        ]:
            reading = [stack.enter_context(path.open("rb")) for path in ours.rglob("*.png")]
            written = [os.fstat(opened.fileno()).st_mtime_ns for opened in reading]
            files = [file(server.uploaded("picture.png", picture)) for picture in pictures]
            server.call(function, files, **more)
            assert shown(server).endswith(" 10")
            assert [os.fstat(opened.fileno()).st_mtime_ns for opened in reading] == written


@pytest.mark.parametrize("name", [
    "../../../../tmp/picture.png", "/etc/picture.png", "..", ".", "", "a/..", "x" * 5000, "é\n.png",
    "picture.png\0.txt", "..\\..\\picture.png", "%2e%2e%2fpicture.png", "deep_links/state.json",
])  # fmt: skip
def test_an_upload_stays_in_the_upload_directory_whatever_its_name(
    server: Server, ours: pathlib.Path, name: str
):
    status, answer = server.upload(name, PICTURE)
    if status == 200:
        (path,) = json.loads(answer)
        assert pathlib.Path(path).parent.parent == ours and pathlib.Path(path).is_file()
        server.call(UPLOAD, [file(path)])
        assert shown(server).endswith(" 10")
    else:
        assert status in (400, 413)


def test_the_page_says_that_lossless_jpegs_are_not_supported(server: Server):
    path = server.uploaded("photo.jpg", jpegs.lossless(PIXELS))
    server.call(UPLOAD, [file(path)])
    assert "Cannot read this picture: a lossless JPEG, which is not supported" in shown(server)


@pytest.fixture(scope="module")
def traps(ours: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of files that are not uploads, of missing files, and of links."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "picture.png").write_bytes(PICTURE)
    os.mkfifo(elsewhere / "pipe.png")
    inside = ours / ("0" * 64)
    inside.mkdir()
    (inside / "picture.png").write_bytes(PICTURE)  # a valid upload
    os.mkfifo(inside / "pipe.png")
    (inside / "directory").mkdir()
    (inside / "link.png").symlink_to(elsewhere / "picture.png")
    (ours / ("1" * 64)).symlink_to(elsewhere)
    (ours / "picture.png").write_bytes(PICTURE)
    above = os.path.relpath(elsewhere, inside)
    return [
        *(str(elsewhere / name) for name in ("picture.png", "nowhere.png", "pipe.png", "")),
        *("/etc/passwd", "/etc/nowhere", "/etc/passwd/", "/", "/dev/zero", "/dev/stdin"),
        *("/proc/self/environ", "/proc/self/fd/0", "~/.bashrc", "", ".", "..", "main.py"),
        *("README.md", "nowhere.md", "./main.py", "../../../../../../etc/passwd"),
        *(f"{inside}/{above}/picture.png", f"{inside}/../{'0' * 64}/picture.png"),
        *(f"{inside}//picture.png", f"{inside}/./picture.png", f"{inside}/picture.png/"),
        *(str(inside / name) for name in ("pipe.png", "directory", "link.png", "nowhere", "..")),
        *(f"{ours}/{'1' * 64}/picture.png", f"{ours}/picture.png", str(ours), str(inside)),
        *(f"{inside}/picture.png\0", f"{inside}/{'x' * 5000}"),
        *(f"{scheme}{inside}/picture.png" for scheme in ("file:", "file://", " ", "\\")),
        str(inside / "picture.png").upper(),
    ]


def test_a_call_reads_only_uploads_and_reveals_nothing_about_other_files(
    server: Server, ours: pathlib.Path, traps: list[str]
):
    began = time.monotonic()
    for path in traps:
        assert server.call(UPLOAD, [file(path)]) == NOT_A_FILE, path
        assert server.call(UPLOAD, [file(path, url=path, is_stream=True)]) == NOT_A_FILE, path
    assert time.monotonic() - began < 20
    assert server.call(UPLOAD, [file(f"{ours}/{'0' * 64}/picture.png")])[0] == 200
    assert shown(server).endswith(" 10")


def test_only_uploads_are_served(server: Server, traps: list[str]):
    for path in traps:
        for quoted in (urllib.parse.quote(path, safe="/:~"), urllib.parse.quote(path, safe="")):
            assert server.ask(f"/gradio_api/file={quoted}") == NOT_A_FILE, path
            twice = urllib.parse.quote(quoted)
            assert server.ask(f"/gradio_api/file={twice}")[0] == 403, path


@pytest.mark.parametrize("directory", ["assets", "static", "svelte"])
def test_gradios_asset_paths_cannot_escape_their_directories(server: Server, directory: str):
    for above in ("..", "%2e%2e", "..%2f..", "%2fetc", "x/../../.."):
        for name in ("package.json", "routes.py", "nowhere"):
            assert server.ask(f"/{directory}/{above}/{name}") == NOT_A_PART


def test_the_server_sends_no_requests_of_its_own(server: Server, temporary: pathlib.Path):
    requested = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requested.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{other.server_port}/picture.png"
        path = server.uploaded("picture.png", PICTURE)
        for url in (f"http://{at}", f"https://{at}", f"HTTP://{at}", f"//{at}", f"ftp://{at}"):
            assert server.call(UPLOAD, [file(url)]) == NOT_A_FILE
            assert server.ask(f"/gradio_api/file={url}") == NOT_A_FILE
            assert server.ask(f"/gradio_api/proxy={url}") == NOT_A_PART
            # For an upload, only the path counts.
            assert server.call(UPLOAD, [file(path, url=url)])[0] == 200
            assert shown(server).endswith(" 10")
        other.shutdown()
    assert requested == []


# ---------------------------------------------------------------------------- routes, calls
def test_only_the_gradio_routes_that_the_page_uses_answer(server: Server):
    """Tries every route in Gradio's source, including those that depend on its settings."""
    (place,) = importlib.util.find_spec("gradio").submodule_search_locations  # pyright: ignore[reportGeneralTypeIssues, reportOptionalMemberAccess]
    source = (pathlib.Path(place) / "routes.py").read_text()
    routes = re.findall(r'@(app|router)\.(\w+)\(\s*f?"([^"]*)"', source)
    answered = set()
    for owner, method, route in routes:
        path = "/gradio_api" * (owner == "router") + re.sub(r"{[^}]*}", "x", route)
        body = b"{}" if method == "post" else None
        status, answer = server.ask(path, body, method.upper(), Content_Type="application/json")
        refused = (status, answer or NOT_A_PART[1]) == NOT_A_PART  # HEAD has no body
        answered |= set() if refused else {path}
    assert answered == {
        *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json"),
        *("/static/x", "/assets/x", "/svelte/x", "/gradio_api/file=x", "/gradio_api/upload"),
        *("/gradio_api/upload_progress", "/gradio_api/queue/data", "/gradio_api/queue/join"),
    }
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        assert server.ask("/gradio_api/queue/join", None, method)[0] in (400, 404)


@pytest.mark.parametrize("call", [
    {"data": []},
    {"data": None},
    {"data": [None]},
    {"data": ["/etc/passwd"]},
    {"data": [[file("/etc/passwd")]]},
    {"data": [{"url": "/etc/passwd"}]},
    {"data": [file(["/etc/passwd"])]},
    {"data": [file(0)]},
    {"data": [file("\ud800")]},
    {"data": [file("/etc/passwd"), file("/etc/passwd")]},
    {"data": [file("/etc/passwd")], "event_data": {"index": 0}},
    {"function": CLEAR, "data": [file("/etc/passwd")]},
    {"function": SELECT, "data": []},
    {"function": SELECT, "data": [file("/etc/passwd")], "event_data": {"index": 0}},
    *({"function": SELECT, "data": [], "event_data": event} for event in (
        {}, [], 0, {"index": -1}, {"index": None}, {"index": "0"}, {"index": 0.5}, {"index": True},
        {"index": [0, 1]},
    )),
    *({"function": function, "data": []} for function in (-1, 3, 10**30, "0", None, True)),
    *({"data": [], "session_hash": session} for session in ("", "../x", None, "x" * 65, 1)),
    {"data": [], "trigger_id": "x"},
])  # fmt: skip
def test_calls_that_the_page_does_not_make_are_refused(server: Server, call: dict[str, Any]):
    call = {"function": UPLOAD, **call}
    assert server.call(**call) == (422, b"not a call this page makes")


def test_a_body_that_is_not_a_call_is_refused(server: Server):
    deep = b"[" * 30_000
    for body in (b"", b"null", b"[]", b"0", b'"', b"{", deep, b"\xff", b'{"data": ' + deep):
        found = server.ask("/gradio_api/queue/join", body, Content_Type="application/json")
        assert found == (422, b"not a call this page makes")


def test_a_test_image_is_selected_by_its_index(server: Server):
    select = {"event_data": {"index": 3, "value": {"image": file("/etc/passwd")}}}
    assert server.call(SELECT, [], **select)[0] == 200
    assert "the test set says 3" in server.answers()[2]
    for index in (10, 10**12, 10**30):
        assert server.call(SELECT, [], event_data={"index": index})[0] in (200, 422)
        if index < 10**30:
            assert "There is no such test image" in server.answers()[1]


# ---------------------------------------------------------------------------- hosts and origins
REQUESTS = [("/", None), ("/config", None), ("/theme.css", None), ("/gradio_api/queue/join", b"{}"),
         ("/gradio_api/upload", b""), ("/gradio_api/queue/data?session_hash=x", None),
         ("/gradio_api/file=/etc/passwd", None), ("/nowhere", None)]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_only_this_machines_names_with_the_port_are_accepted_as_host(
    server: Server, path: str, body: bytes | None
):
    port = server.port
    for host in (
        *("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"),  # pyright: ignore[reportOptionalOperand]
        *(f"127.0.0.2:{port}", f"localhost.evil.example:{port}", f"0.0.0.0:{port}", f":{port}"),
        *(f"localhost:{port}@evil.example", f"2130706433:{port}", f"[::]:{port}", "", None),
        f"127.0.0.1:{port}, evil.example",
    ):
        status, answer = server.ask(path, body, host=host)
        assert status in (400, 403), host  # 400: HTTP itself requires a valid host
        assert status == 400 or answer == f"this page is at localhost:{port}".encode()


def test_every_name_of_this_machine_is_accepted(server: Server):
    for name in ("localhost", "127.0.0.1", "[::1]", "LocalHost"):
        host = f"{name}:{server.port}"
        assert server.ask("/", host=host)[0] == 200
        assert server.ask("/config", host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_requests_from_other_origins_are_refused(server: Server, path: str, body: bytes | None):
    kind = {"/gradio_api/queue/join": "application/json"}.get(path, "multipart/form-data")
    port = server.port
    for origin in (
        *("https://evil.example", "null", "", f"http://localhost:{port}", f"{server.origin}/"),
        *(f"https://127.0.0.1:{port}", "http://127.0.0.1", f"http://127.0.0.1:{port + 1}"),  # pyright: ignore[reportOptionalOperand]
    ):
        status, answer = server.ask(path, body, Origin=origin, Content_Type=kind)
        assert (status, answer) == (403, b"requests from other pages are refused"), origin
    for site in ("cross-site", "same-site"):
        status, _ = server.ask(path, body, Sec_Fetch_Site=site, Content_Type=kind)
        assert status == 403
    # A link may lead to the page itself, and nowhere else.
    status, _ = server.ask(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert (status == 200) == (path == "/")


def test_no_other_page_may_frame_this_one(server: Server):
    import urllib.request

    with urllib.request.urlopen(server.origin) as answer:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize("kind", [
    "text/plain", "application/x-www-form-urlencoded", None, "", "multipart/form-data",
    "text/plain; application/json",
])  # fmt: skip
def test_content_types_that_an_html_form_can_send_are_refused(server: Server, kind: str | None):
    body = json.dumps({"fn_index": CLEAR, "data": [], "session_hash": "x"}).encode()
    assert server.ask("/gradio_api/queue/join", body, Content_Type=kind)[0] == 415
    if kind != "multipart/form-data":
        assert server.upload("x.png", PICTURE, Content_Type=kind)[0] == 415


# ---------------------------------------------------------------------------- size and time
def test_bodies_must_declare_their_length_and_be_small(server: Server):
    for path, kind, most in (
        ("/gradio_api/queue/join", "application/json", 64 << 10),
        ("/gradio_api/upload", "multipart/form-data", images.MAX_BYTES + (64 << 10)),
    ):
        for length, status in ((str(most + 1), 413), (str(10**30), 413), (None, 411), ("-1", 400)):
            found, _ = server.ask(path, b"", Content_Type=kind, Content_Length=length)
            assert found in (status, 400 if length else status), length
        for length in (None, "5"):
            chunked = {"Content_Length": length, "Transfer_Encoding": "chunked"}
            status, _ = server.ask(path, b"0\r\n\r\n", Content_Type=kind, **chunked)
            assert status == 411 or length and status == 400


def test_requests_that_never_end_do_not_block_others(server: Server):
    """Uploads and calls that stall in the middle, and streams that nobody reads."""
    head = f"Host: 127.0.0.1:{server.port}\r\n"
    upload = "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x"
    call = "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            for start in (
                f"POST /gradio_api/upload HTTP/1.1\r\n{head}{upload}",
                f"POST /gradio_api/queue/join HTTP/1.1\r\n{head}{call}",
                f"GET /gradio_api/queue/data?session_hash=never HTTP/1.1\r\n{head}\r\n",
                "GET / HTTP",
            ):
                waiting = socket.create_connection(("127.0.0.1", server.port))
                stack.enter_context(waiting).sendall(start.encode())
        began = time.monotonic()
        server.call(UPLOAD, [file(server.uploaded("picture.png", PICTURE))])
        assert shown(server).endswith(" 10")
        one_more = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        one_more.sendall(f"POST /gradio_api/upload HTTP/1.1\r\n{head}{upload}".encode())
        upload_until(503, server)
        assert server.ask("/")[0] == 200
        assert time.monotonic() - began < 20
    upload_until(200, server)


def upload_until(status: int, server: Server) -> None:
    """Repeats an upload until the server answers with `status`."""
    until = time.monotonic() + command_line.HANGS
    while server.upload("picture.png", PICTURE)[0] != status:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(("path", "kind"), [
    ("/gradio_api/queue/join", "application/json"),
    ("/gradio_api/upload", "multipart/form-data; boundary=x"),
])  # fmt: skip
def test_a_body_that_does_not_arrive_times_out(
    path: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    import gradio as gr

    from cifar_jax.demo import gate

    async def read_body(
        scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ):
        await starlette.requests.Request(scope, receive).body()

    async def nothing() -> Any:
        await asyncio.sleep(60)

    async def send(message: MutableMapping[str, Any]):
        sent.append(message)

    sent = []
    monkeypatch.setattr(gate, "BODY_TIMEOUT", 0.01)
    headers = {"host": "localhost:1", "content-type": kind, "content-length": "9"}
    scope = {
        "type": "http", "method": "POST", "path": path, "server": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    blocks = mock.Mock(spec=gr.Blocks, fns={})
    asyncio.run(gate.Gate(read_body, blocks)(scope, nothing, send))
    assert sent[0]["status"] == 408


def test_the_oldest_uploads_are_deleted_to_make_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "MAX_TOTAL", 25)
    directory = pathlib.Path(uploads.DIRECTORY) / ("a" * 64)
    directory.mkdir()
    paths = [directory / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes(10))
        os.utime(path, (i, i))
    others = frozenset(uploads.files()) - set(map(str, paths))
    uploads.make_room(others | {str(paths[0])})
    assert [path.exists() for path in paths] == [True, False, True, True]
    with pytest.raises(UserError, match="pick it again"):
        uploads.read(str(paths[1]))
    uploads.make_room(others)
    assert uploads.read(str(paths[3])) == bytes(10)


def test_a_file_swapped_for_a_link_or_pipe_while_opening_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    directory = pathlib.Path(uploads.DIRECTORY) / ("b" * 64)
    directory.mkdir()
    (tmp_path / "secret").write_text("secret")
    (directory / "link.png").symlink_to(tmp_path / "secret")
    os.mkfifo(directory / "pipe.png")
    monkeypatch.setattr(uploads, "holds", lambda path: True)
    with pytest.raises(UserError):
        uploads.read(str(directory / "link.png"))
    assert uploads.read(str(directory / "pipe.png")) == b""


# ---------------------------------------------------------------------------- the end
PROGRAM = (
    "import os, signal, sys, time; from cifar_jax.demo import uploads;"
    " open(uploads.DIRECTORY + '/picture.png', 'w').write('x'); print(flush=True);"
)


@pytest.mark.parametrize("end", [
    "sys.exit(3)", "raise ValueError", "os._exit(0)", "os.abort()",
    *(f"os.kill(os.getpid(), signal.{name}); time.sleep(60)" for name in (
        "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGKILL", "SIGSEGV",
    )),
    "os.killpg(0, signal.SIGKILL); time.sleep(60)",
])  # fmt: skip
def test_uploads_are_deleted_however_the_process_ends(end: str, tmp_path: pathlib.Path):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + end],
        cwd=command_line.ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    output, _ = process.communicate(timeout=command_line.HANGS)
    assert output == b"\n"
    until = time.monotonic() + command_line.HANGS
    while list(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []
