"""The page: its layout, and the functions that answer a picture."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component

from cifar_jax.data import images
from cifar_jax.demo import drawing, uploads
from cifar_jax.demo.examples import Example
from cifar_jax.errors import UserError
from cifar_jax.evaluation import saliency
from cifar_jax.evaluation.trained import Trained

_BARS = 10
_MAX_QUEUE = 64  # pictures that wait for an answer
_COLUMN = 300  # pixels; narrower columns are stacked
_INTRODUCTION = """# What does the network see?
Drop, paste or pick a picture, or choose one from the test set. It stays on this machine."""

CSS = """
#picture img { width: 100%; height: 100%; object-fit: contain }
.examples .grid-wrap { min-height: 0 }
.examples .grid-container { grid-template: none; grid-auto-rows: auto; gap: 4px;
  grid-template-columns: repeat(auto-fill, minmax(54px, 1fr)) }
.examples .caption-label { max-width: 100%; right: 0; bottom: 0; padding: 0 2px; font-size: 10px }
"""
# Gradio pastes only through a button. This hands files pasted with Ctrl-V to its file input.
PASTE = """() => document.addEventListener("paste", (event) => {
  const input = document.querySelector("#picture input[type=file]");
  if (event.clipboardData.files.length) {
    input.files = event.clipboardData.files;
    input.dispatchEvent(new Event("change"));
  }
})"""


class _Panel:
    """A network's part of the page."""

    def __init__(self, network: Trained):
        self._network = network
        self._saliency = saliency.make(network)
        self.answer(
            drawing.png(np.zeros(network.image_shape, np.uint8))
        )  # compile now, not at the first picture

    def render(self) -> list[Component]:
        """Adds the components to the page; returns those that `answer` fills."""
        network = self._network
        height, width, _ = network.image_shape
        name, data = html.escape(str(network.workdir)), html.escape(network.config.data.name)
        gr.HTML(f"<h2>{name}</h2>epoch {network.epoch}, trained on {data}")
        bars = min(_BARS, len(network.class_names))
        label = gr.Label(num_top_classes=bars, label="Probabilities")
        with gr.Row():
            seen = _output(
                f"What the network sees, {width} x {height}", "The picture as the network sees it"
            )
            where = _output(
                "Where it looks", "The pixels that matter most for its top class: SmoothGrad"
            )
        return [label, seen, where]

    def answer(self, source: bytes) -> list[Any]:
        """Values for the components of `render`, from the content of an image file.

        Raises:
          UserError: the file cannot be read as an image; the message is only the reason.
        """
        image = images.decode(source, self._network.image_shape)
        probabilities = self._network.predict(image[None])[0]
        mask = self._saliency(image, int(probabilities.argmax()))
        by_class = zip(self._network.class_names, map(float, probabilities), strict=True)
        return [dict(by_class), drawing.enlarged(image), drawing.overlay(image, mask)]


def build(networks: Sequence[Trained], examples: Mapping[str, list[Example]]) -> gr.Blocks:
    """The page of one network, or of several side by side, each at its own image size.

    Args:
      examples: name of the data set -> its examples.
    """
    panels = [_Panel(network) for network in networks]
    outputs: list[Component] = []

    def answer(source: bytes | str, note: str = "") -> list[Any]:
        try:
            content = uploads.read(source) if isinstance(source, str) else source
            values = [value for panel in panels for value in panel.answer(content)]
        except UserError as error:
            return [_message(f"Cannot read this picture: {error}", "alert"), *blank()[1:]]
        return [_message(note), *values]

    def blank() -> list[Any]:
        return [_message(), *[None] * (len(outputs) - 1)]

    with gr.Blocks(title="cifar-jax", analytics_enabled=False) as blocks:
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=_COLUMN):
                picture = _input()
                outputs.append(gr.HTML(_message()))
                galleries = [
                    (_gallery(name, some), some) for name, some in examples.items() if some
                ]
            for panel in panels:
                with gr.Column(min_width=_COLUMN):
                    outputs += panel.render()
        # Gradio's preprocessing would open the file itself and could not say what is wrong with it.
        picture.upload(
            lambda file: answer(file["path"]),
            picture,
            outputs,
            preprocess=False,
            api_visibility="private",
        )
        picture.clear(blank, None, outputs, api_visibility="private")
        for gallery, some in galleries:

            def show(event: gr.SelectData, some: list[Example] = some) -> list[Any]:
                if event.index >= len(some):
                    return [None, _message("There is no such test image", "alert"), *blank()[1:]]
                example = some[event.index]
                note = f"A test image; true class: {example.truth}"
                return [
                    drawing.picture(example.image),
                    *answer(drawing.png(example.image), note),
                ]

            gallery.select(show, None, [picture, *outputs], api_visibility="private")
    return blocks.queue(max_size=_MAX_QUEUE, default_concurrency_limit=1)


def _input() -> gr.Image:
    return gr.Image(
        label="Picture",
        alt_text="The picture to classify",
        elem_id="picture",
        type="filepath",
        format="png",
        sources=["upload", "clipboard"],
        buttons=[],
        height=280,
    )


def _output(title: str, description: str) -> gr.Image:
    with gr.Column(min_width=_COLUMN // 2 - 20):
        gr.Markdown(title)
        return gr.Image(
            show_label=False, alt_text=description, interactive=False, format="png", buttons=[]
        )


def _gallery(name: str, examples: list[Example]) -> gr.Gallery:
    gr.Markdown(f"Test images of {name} with their true classes:")
    return gr.Gallery(
        [(drawing.enlarged(example.image), example.truth) for example in examples],
        elem_classes="examples",
        show_label=False,
        format="png",
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )


def _message(text: str = "", role: str = "status") -> str:
    return f'<p role="{role}">{html.escape(text)}</p>'
