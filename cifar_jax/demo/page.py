"""The page: its layout, and the functions that answer a picture."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image

from cifar_jax.data import images
from cifar_jax.demo import answers, drawing, uploads
from cifar_jax.demo.examples import Example
from cifar_jax.errors import UserError
from cifar_jax.evaluation import saliency
from cifar_jax.evaluation.trained import Trained

_MAX_QUEUE = 64  # pictures that wait for an answer
_COLUMN = 300  # pixels; narrower columns are stacked
_NO_ANSWER: list[str | None] = ["", None, None]  # in place of a network's text and pictures
_INTRODUCTION = """# What does the network see?
Drop, paste or pick a picture, or choose one from the test set. It stays on this machine."""
_LEGEND = """<div class="legend"><span>little</span><i></i><span>much</span></div>
<p>How much a small change of a pixel changes the answer: SmoothGrad, the mean of the gradients at
some noisy copies.</p>"""

CSS = f"""{answers.CSS}
#picture img {{ width: 100%; height: 100%; object-fit: contain }}
.output:not(:has(img)) {{ display: none }}
.legend {{ display: flex; gap: 8px; align-items: center }}
.legend i {{ flex: 1; height: 10px; border-radius: 3px;
  background: linear-gradient(to right, #000004, #57106e, #bc3754, #f98e09, #fcffa4) }}
.examples .grid-wrap {{ min-height: 0 }}
.examples .grid-container {{ grid-template: none; grid-auto-rows: auto; gap: 4px;
  grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)) }}
.examples .caption-label {{ max-width: 100%; right: 0; bottom: 0; padding: 0 4px; font-size: 12px }}
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
    """A network's parts of the page: its answer, what it sees, and where it looks."""

    def __init__(self, network: Trained):
        self._network = network
        self._saliency = saliency.make(network)
        self._origin = (
            f"{network.workdir}, epoch {network.epoch}, trained on {network.config.data.name}"
        )
        # Compile now, not at the first picture.
        self.answer(drawing.png(drawing.picture(np.zeros(network.image_shape, np.uint8))), None)

    def render(self, seen: str | None, where: str | None) -> list[Component]:
        """Adds the two pictures, which show these files, to the page, and returns them."""
        height, width, _ = self._network.image_shape
        with gr.Row():
            pictures: list[Component] = [
                _output(
                    seen,
                    f"What the network sees, {width} x {height}",
                    "The picture as the network sees it",
                ),
                _output(
                    where,
                    "Where it looks",
                    "The pixels that matter most for its top class: SmoothGrad",
                ),
            ]
        gr.HTML(_LEGEND)
        return pictures

    def answer(self, source: bytes, truth: str | None) -> list[str | None]:
        """The answer to an image file's content, as HTML, and the two pictures' files.

        Raises:
          UserError: the file cannot be read as an image; the message is only the reason.
        """
        network = self._network
        image = images.decode(source, network.image_shape)
        probabilities = network.predict(image[None])[0]
        mask = self._saliency(image, int(probabilities.argmax()))
        by_class = dict(zip(network.class_names, map(float, probabilities), strict=True))
        pictures = (drawing.enlarged(image), drawing.overlay(image, mask))
        text = answers.shown(by_class, self._origin, truth)
        return [text, *map(_path, pictures)]


def build(networks: Sequence[Trained], examples: Mapping[str, list[Example]]) -> gr.Blocks:
    """The page of one network, or of several side by side, each at its own image size.

    Args:
      examples: name of the data set -> its examples. The page shows the answer to the first one.
    """
    panels = [_Panel(network) for network in networks]

    def of_file(path: str) -> list[str | None]:
        try:
            content = uploads.read(path)
            values = [value for panel in panels for value in panel.answer(content, None)]
            shown = drawing.framed(content, networks[0].image_shape)
        except UserError as error:
            return refused(f"Cannot read this picture: {error}")
        return [_path(shown), _message(), *values]

    def of_example(example: Example) -> list[str | None]:
        content = drawing.png(drawing.picture(example.image))
        values = [value for panel in panels for value in panel.answer(content, example.truth)]
        return [_path(drawing.enlarged(example.image)), _message(), *values]

    def blank(message: str = "") -> list[str | None]:
        return [None, message or _message(), *(_NO_ANSWER * len(panels))]

    def refused(reason: str) -> list[str | None]:
        return blank(_message(reason, "alert"))

    # The page comes with its first answer. Did the opened page ask for it, it could arrive while
    # the user picks a file, and Gradio would lose the file.
    first = next((some[0] for some in examples.values() if some), None)
    shown, said, *rest = of_example(first) if first else blank()
    of_panels = [rest[i : i + len(_NO_ANSWER)] for i in range(0, len(rest), len(_NO_ANSWER))]
    with gr.Blocks(title="cifar-jax", analytics_enabled=False) as blocks:
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=_COLUMN):
                picture = _input(shown)
                message = gr.HTML(said)
                texts = [gr.HTML(text) for text, *_ in of_panels]
            outputs: list[Component] = [picture, message]
            for panel, text, (_, *paths) in zip(panels, texts, of_panels, strict=True):
                with gr.Column(scale=2, min_width=_COLUMN):
                    outputs += [text, *panel.render(*paths)]
        galleries = [(_gallery(name, some), some) for name, some in examples.items() if some]
        # One after the other, in their order: else a slow answer could replace a later one.
        events: dict[str, Any] = {"concurrency_id": "answer", "api_visibility": "private"}
        # Gradio's preprocessing would open the file itself and could not say what is wrong with it.
        picture.upload(
            lambda file: of_file(file["path"]),
            picture,
            outputs,
            preprocess=False,
            **events,
        )
        picture.clear(blank, None, outputs, **events)
        for gallery, some in galleries:

            def show(event: gr.SelectData, some: list[Example] = some) -> list[str | None]:
                if event.index >= len(some):
                    return refused("There is no such test image")
                return of_example(some[event.index])

            gallery.select(show, None, outputs, **events)
    return blocks.queue(max_size=_MAX_QUEUE, default_concurrency_limit=1)


def _input(path: str | None) -> gr.Image:
    return gr.Image(
        path,
        label="Picture",
        alt_text="The picture to classify",
        elem_id="picture",
        type="filepath",
        format="png",
        sources=["upload", "clipboard"],
        buttons=[],
        height=280,
    )


def _output(path: str | None, title: str, description: str) -> gr.Image:
    with gr.Column(min_width=_COLUMN // 2 - 20):
        gr.Markdown(title)
        return gr.Image(
            path,
            elem_classes="output",
            show_label=False,
            alt_text=description,
            interactive=False,
            format="png",
            buttons=[],
        )


def _gallery(name: str, examples: list[Example]) -> gr.Gallery:
    gr.Markdown(f"Test images of {name} with their true classes:")
    return gr.Gallery(
        [(_path(drawing.enlarged(example.image)), example.truth) for example in examples],
        elem_classes="examples",
        show_label=False,
        format="png",
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )


def _path(picture: Image.Image) -> str:
    return uploads.put(drawing.png(picture))


def _message(text: str = "", role: str = "status") -> str:
    return f'<p role="{role}">{html.escape(text)}</p>'
