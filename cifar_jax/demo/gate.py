"""Filters requests before Gradio sees them.

Gradio serves far more than the page needs: files, proxies, deep links, its own editor. And any
page open in the user's browser can send requests to this machine, or let its own host name resolve
to it (DNS rebinding). So the gate accepts only the requests that the page itself makes, only under
this machine's names, and only from the page or from programs other than browsers.
"""

import asyncio
import json
import re
from typing import Annotated

import gradio as gr
import pydantic
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar_jax.data import images
from cifar_jax.demo import uploads

_NAMES = ("localhost", "127.0.0.1", "[::1]")
_PAGES = re.compile(
    r"/(|config|theme\.css|favicon\.ico|manifest\.json|gradio_api/(queue/data|upload_progress)"
    r"|(assets|static|svelte)(/[\w@-][\w.@-]*)+)"
)
_FILE, _UPLOAD, _CALL = "/gradio_api/file=", "/gradio_api/upload", "/gradio_api/queue/join"
_POSTS = {  # content type, most bytes
    _UPLOAD: ("multipart/form-data", images.MAX_BYTES + (64 << 10)),
    _CALL: ("application/json", 64 << 10),
}
_UPLOADS_AT_ONCE = 4
BODY_TIMEOUT = 60  # seconds between two parts of a request body

_HEADERS = {
    # Gradio uses inline scripts and eval.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:;"
    " frame-ancestors 'none'; form-action 'none'; base-uri 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_Index = Annotated[int, pydantic.Field(strict=True, ge=0)]


class _File(pydantic.BaseModel):
    path: str


class _Event(pydantic.BaseModel):
    index: _Index


class _Call(pydantic.BaseModel):
    """The parts of a call that the page's functions need; nothing else is passed on."""

    session_hash: Annotated[str, pydantic.Field(pattern=r"^\w{1,64}$")]
    fn_index: _Index
    trigger_id: _Index | None = None
    data: list[_File]
    event_data: _Event | None = None


class Gate:
    """ASGI middleware in front of the Gradio app that serves `blocks`."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks):
        self._app = app
        # Function -> number of files it takes, and whether it receives a selection.
        self._functions = {
            i: (len(fn.inputs), any(event == "select" for _, event in fn.targets))
            for i, fn in blocks.fns.items()
        }
        self._kept = frozenset(uploads.files())
        self._uploading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # the page uses none
            await send({"type": "websocket.close", "code": 1008})
        else:
            send = _with_headers(send)
            try:
                _check_names(scope)
                await self._pass(scope, receive, send)
            except HTTPException as refusal:
                response = PlainTextResponse(refusal.detail, refusal.status_code)
                await response(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if scope["method"] in ("GET", "HEAD"):
            if path.startswith(_FILE):
                if not uploads.holds(path.removeprefix(_FILE)):
                    raise HTTPException(403, "not a file of this page")
            elif not _PAGES.fullmatch(path):
                raise HTTPException(404, "not part of this page")
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST" or path not in _POSTS:
            raise HTTPException(404, "not part of this page")
        _check_body(Headers(scope=scope), *_POSTS[path])
        if path == _CALL:
            body = self._checked(await _body(receive))
            await self._app(_with_length(scope, len(body)), _replay(body, receive), send)
            return
        if self._uploading >= _UPLOADS_AT_ONCE:
            raise HTTPException(503, "too many uploads at once: try again later")
        self._uploading += 1
        try:
            uploads.make_room(self._kept)
            await self._app(scope, _with_timeout(receive), send)
        finally:
            self._uploading -= 1

    def _checked(self, body: bytes) -> bytes:
        """The call in `body`, reduced to its known parts, as JSON.

        Raises:
          HTTPException: the page makes no such call, or a file is not one of its uploads.
        """
        try:
            call = _Call.model_validate_json(body)
        except pydantic.ValidationError as error:
            raise HTTPException(422, "not a call this page makes") from error
        shape = (len(call.data), call.event_data is not None)
        if self._functions.get(call.fn_index) != shape:
            raise HTTPException(422, "not a call this page makes")
        if not all(uploads.holds(file.path) for file in call.data):
            raise HTTPException(403, "not a file of this page")
        plain = call.model_dump()
        for file in plain["data"]:
            file["meta"] = {"_type": "gradio.FileData"}
        if call.event_data:
            plain["event_data"]["value"] = None
        return json.dumps(plain).encode()


def _check_names(scope: Scope) -> None:
    """Raises HTTPException if the request names another host or comes from another page."""
    headers = Headers(scope=scope)
    _, port = scope["server"]
    hosts = {f"{name}:{port}" for name in _NAMES} | ({*_NAMES} if port == 80 else set())
    host = [value.lower() for value in headers.getlist("host")]
    if len(host) != 1 or host[0] not in hosts:
        raise HTTPException(403, f"this page is at {_NAMES[0]}:{port}")
    if [value for value in headers.getlist("origin") if value.lower() != f"http://{host[0]}"]:
        raise HTTPException(403, "requests from other pages are refused")
    # Browsers send the origin of each request. A link on another page may open this one.
    linked = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not linked:
        raise HTTPException(403, "requests from other pages are refused")


def _check_body(headers: Headers, kind: str, most: int) -> None:
    """Raises HTTPException unless the body has content type `kind` and at most `most` bytes."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise HTTPException(415, f"expected {kind}")
    length = headers.get("content-length", "")
    # The server holds a body to its declared length, except if it comes in chunks.
    if not length.isdecimal() or "transfer-encoding" in headers:
        raise HTTPException(411, "Content-Length is required")
    if int(length) > most:
        raise HTTPException(413, f"the body has more than {most} bytes")


def _with_timeout(receive: Receive) -> Receive:
    """Wraps `receive`; raises HTTPException if a part of the body takes too long to arrive."""
    more = True

    async def receive_in_time() -> Message:
        nonlocal more
        if not more:
            return await receive()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, "timed out waiting for the request body") from error
        more = message.get("more_body", False)
        return message

    return receive_in_time


async def _body(receive: Receive) -> bytes:
    receive, body, more = _with_timeout(receive), b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    messages = [{"type": "http.request", "body": body}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _with_length(scope: Scope, length: int) -> Scope:
    headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return send_with_headers
