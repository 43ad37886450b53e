"""Serves the page on the loopback address."""

import os
import signal
import socket
import sys
from collections.abc import Sequence

import fastapi
import gradio as gr
import uvicorn
from etils import epath
from gradio.themes import Default, Font

from cifar_jax.data import images
from cifar_jax.demo import examples, page
from cifar_jax.demo.gate import Gate
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.terminal import say

HOST = "127.0.0.1"


def run(workdirs: Sequence[epath.Path], port: int, data_dir: str = "") -> None:
    """Serves the page until SIGINT (KeyboardInterrupt), SIGTERM or SIGHUP (SystemExit).

    Args:
      workdirs: the runs to show, one or two.
      port: on 127.0.0.1; 0: any free port.
      data_dir: where this machine keeps the data; "": where the config says.

    Raises:
      UserError: a workdir has no trained network, or the port is not available.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        # The server shuts down cleanly on SIGTERM.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"--port={port} is not available ({reason}): choose another") from error
    with listening:
        networks = [trained.load(workdir, data_dir) for workdir in workdirs]
        by_data = {network.config.data.name: network for network in networks}
        found = {name: examples.find(network) for name, network in by_data.items()}
        config = uvicorn.Config(
            application(page.build(networks, found)),
            log_level="critical",  # or it logs cut connections as errors at the end
            timeout_graceful_shutdown=1,
            proxy_headers=False,
        )
        say(f"http://{HOST}:{listening.getsockname()[1]}/ is ready; press Ctrl-C to stop")
        uvicorn.Server(config).run(sockets=[listening])


def application(blocks: gr.Blocks) -> Gate:
    """The page as an ASGI application behind its `Gate`. Uses system fonts: no downloads."""
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        max_file_size=images.MAX_BYTES,
        theme=Default(font=[Font("system-ui"), Font("sans-serif")], font_mono=[Font("monospace")]),
        css=page.CSS,
        js=page.PASTE,
    )
    return Gate(app, blocks)
