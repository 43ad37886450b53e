"""Describes the content of a data set in JSON, so that runs and caches can recognize it.

    {
        "image_shape": [H, W, C],
        "class_names": [name of label 0, name of label 1, ...],
        "fingerprint": {split: {"images": count, "pixels": SHA-256, "content": SHA-256}},
    }

"content" hashes the bytes of all images, followed by all labels as little-endian int32; "pixels"
hashes the images only. For data in canonical order, both are the same whatever the source.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from cifar_jax.data.archive import Splits

KEYS = ("image_shape", "class_names", "fingerprint")


def canonical(
    images: UInt8[np.ndarray, "n ..."], labels: Int32[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "n ..."], Int32[np.ndarray, " n"]]:
    """Sorts a split by the BLAKE2b hash of each image, then by label.

    This order depends on the content alone, so every source arrives at it. It looks shuffled.
    """
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    order = sorted(range(len(images)), key=lambda i: (digests[i], labels[i]))
    return images[order], labels[order]


def of_split(
    images: UInt8[np.ndarray, "n h w c"], labels: Int32[np.ndarray, " n"]
) -> dict[str, Any]:
    """The fingerprint of one split. Takes 0.2 s for CIFAR-10."""
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    pixels = digest.hexdigest()
    digest.update(labels.astype("<i4").tobytes())
    return {"images": len(images), "pixels": pixels, "content": digest.hexdigest()}


def of(splits: Splits, class_names: Sequence[str]) -> dict[str, Any]:
    """The description of a data set, as shown at the top of this file."""
    return {
        "image_shape": list(splits["train"][0].shape[1:]),
        "class_names": list(class_names),
        "fingerprint": {split: of_split(*arrays) for split, arrays in splits.items()},
    }


def differences(known: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Says in words how two descriptions differ; [] if they agree.

    `known` may lack the fingerprint, or its "pixels"; these are then not compared.
    """
    texts = []
    same_shape = known["image_shape"] == found["image_shape"]
    if not same_shape:
        shapes = ("x".join(map(str, one["image_shape"])) for one in (found, known))
        texts.append("images of {} instead of {}".format(*shapes))
    texts += _names(known["class_names"], found["class_names"])
    for split, now in found["fingerprint"].items():
        was = known.get("fingerprint", found["fingerprint"])[split]
        if now["images"] != was["images"]:
            texts.append(f"{now['images']:,} {split} images instead of {was['images']:,}")
        elif same_shape and now["pixels"] != was.get("pixels", now["pixels"]):
            texts.append(f"different pixels in the {split} images")
        elif same_shape and now["content"] != was["content"]:
            texts.append(f"different labels of the {split} images")
    return texts


def _names(known: list[str], found: list[str]) -> list[str]:
    if len(known) != len(found):
        return [f"{len(found)} classes instead of {len(known)}"]
    for i, (was, now) in enumerate(zip(known, found, strict=True)):
        if was != now:
            reordered = sorted(known) == sorted(found)
            hint = " (the classes are in a different order)" if reordered else ""
            return [f"class {i} named {now!r} instead of {was!r}{hint}"]
    return []
