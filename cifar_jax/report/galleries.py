"""Test images to show on a page, chosen by what the network predicts for them."""

import base64
import dataclasses
import io

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image
from scipy.special import softmax

_MISTAKES = 30
_MANY_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Picture:
    """A test image with its true class and the network's prediction. Probabilities in [0, 1]."""

    uri: str  # data:image/png;base64,...
    truth: str
    predicted: str
    confidence: float  # probability of the predicted class
    probability: float  # of the true class

    @property
    def right(self) -> bool:
        return self.truth == self.predicted


def png(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Encodes an image as a PNG; an image of one channel is gray."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(image: UInt8[np.ndarray, "h w c"]) -> str:
    """Encodes an image as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


class Gallery:
    """The pictures of a page; row i of `images`, `logits` and `labels` is one test image."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        logits: Float[np.ndarray, "n k"],
        labels: Integer[np.ndarray, " n"],
        class_names: tuple[str, ...],
    ):
        self._images, self._labels, self._names = images, labels, class_names
        self._probabilities = softmax(logits.astype(np.float64), axis=1)
        self._predicted = logits.argmax(1)

    def _pictures(self, indices: np.ndarray) -> list[Picture]:
        return [
            Picture(
                data_uri(self._images[i]),
                self._names[self._labels[i]],
                self._names[self._predicted[i]],
                float(self._probabilities[i].max()),
                float(self._probabilities[i, self._labels[i]]),
            )
            for i in indices
        ]

    def mistakes(self) -> list[Picture]:
        """The misclassified images, most confident first, at most 30."""
        wrong = np.flatnonzero(self._predicted != self._labels)
        confidence = self._probabilities[wrong].max(1)
        return self._pictures(wrong[np.argsort(-confidence, kind="stable")][:_MISTAKES])

    def extremes(self) -> dict[str, tuple[list[Picture], list[Picture]]]:
        """Class -> its images with the highest and with the lowest probability of that class."""
        each = 4 if len(self._names) <= _MANY_CLASSES else 1
        chosen = {}
        for label, name in enumerate(self._names):
            own = np.flatnonzero(self._labels == label)
            order = own[np.argsort(-self._probabilities[own, label], kind="stable")]
            chosen[name] = (self._pictures(order[:each]), self._pictures(order[::-1][:each]))
        return chosen
