"""Runs the demo as a process and sends it requests that no browser would send."""

import contextlib
import http.client
import json
import secrets
import signal
import urllib.parse
from collections.abc import Iterator
from typing import Any

import command_line
import pytest


@contextlib.contextmanager
def serving(*arguments: str, end: int = signal.SIGINT) -> Iterator[tuple[str, list[str]]]:
    """Runs a demo on a free port until the signal `end`; yields its address and output lines."""
    process = command_line.start("--mode=demo", "--port=0", *arguments)
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("http://"):
                break
        else:
            pytest.fail(f"the demo ended: {lines}")
        yield lines[-1].split()[0], lines
        process.send_signal(end)
        output, _ = process.communicate(timeout=command_line.HANGS)
        assert process.returncode == (130 if end == signal.SIGINT else 0), output
        assert output == ""
    finally:
        process.kill()


class Server:
    """A client of the running demo at `url`."""

    def __init__(self, url: str):
        self.port = urllib.parse.urlsplit(url).port
        self._session = ""
        self.origin = f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        method: str = "",
        host: str | None = "the server's",
        **headers: str | None,
    ) -> tuple[int, bytes]:
        """Sends a request; returns status and body. A header that is None is not sent.

        Args:
          path: sent as it is, so already quoted.
          host: the Host header, by default the server's own.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=command_line.HANGS)
        with contextlib.closing(connection):
            connection.putrequest(method or ("GET" if body is None else "POST"), path, True, True)
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None:
                names = {"Content-Length": str(len(body)), **names}
            names["Host"] = f"127.0.0.1:{self.port}" if host == "the server's" else host
            for name, value in names.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def upload(self, name: str, content: bytes, **headers: str | None) -> tuple[int, bytes]:
        body = (
            (
                f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
            ).encode()
            + content
            + b"\r\n--x--\r\n"
        )
        content_type = headers.pop("Content_Type", "multipart/form-data; boundary=x")
        return self.ask("/gradio_api/upload", body, "POST", Content_Type=content_type, **headers)

    def uploaded(self, name: str, content: bytes) -> str:
        """Uploads a file; returns the path where the server stored it."""
        status, answer = self.upload(name, content)
        assert status == 200, answer
        (path,) = json.loads(answer)
        return path

    def call(self, function: int, data: Any, **more: Any) -> tuple[int, bytes]:
        """Calls one of the page's functions; `answers` waits for the result."""
        self._session = secrets.token_hex(8)
        call = {"session_hash": self._session, "fn_index": function, "data": data, **more}
        return self.ask(
            "/gradio_api/queue/join", json.dumps(call).encode(), Content_Type="application/json"
        )

    def answers(self) -> Any:
        """The values that the page would show for the last call."""
        status, stream = self.ask(f"/gradio_api/queue/data?session_hash={self._session}")
        assert status == 200, stream
        messages = [json.loads(line[6:]) for line in stream.decode().splitlines() if line]
        (last,) = (message for message in messages if message["msg"] == "process_completed")
        return last["output"]["data"]


def file(path: Any, **more: Any) -> dict[str, Any]:
    """A file as Gradio's page refers to it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}
