"""Reads and writes `config.json`, including those of earlier versions."""

from collections.abc import Iterator
from typing import Any

from cifar_jax.config import convert, keys, schema, validation
from cifar_jax.errors import UserError, first_of
from cifar_jax.forms import Damaged

VERSION = 2  # of config.json; files from before 26 November 2026 have none
# Keys that every version has saved.
_FROM_THE_BEGINNING = ("seed", "epochs", "batch_size", "data", "model", "optimizer")
_OF_FAMILY = {  # the keys of each family; version 1 had all of them in one section
    "cnn": ("name", "blocks", "dense", "dense_dropout", "dense_l2", "dirac"),
    "speedrun": ("name", "widths", "residual", "norm_momentum", "logit_scale", "head_std", "dirac"),
}


def to_json(config: schema.Config) -> dict[str, Any]:
    """The content of `config.json`."""
    return {"version": VERSION, **keys.plain(config)}


def from_json(saved: Any, families: convert.Families) -> schema.Config:
    """The config that a run was started with, from the content of its `config.json`.

    Raises:
      Damaged: it is not a config, or a later version wrote it.
    """
    try:
        if not isinstance(saved, dict):
            raise UserError("config must be a group of keys")
        for name in _FROM_THE_BEGINNING:
            if name not in saved:
                raise UserError(f"config.{name} is missing")
        version = saved.get("version", 1)
        if version not in (1, VERSION):
            raise UserError(f"version must be {VERSION} or less: it is {version!r}")
        current = _from_version_1(saved) if version == 1 else saved
        values = {name: value for name, value in current.items() if name != "version"}
        return validation.check(convert.parse(values, families, lenient=True))
    except UserError as error:
        raise Damaged(first_of(str(error).splitlines())) from error


def _from_version_1(saved: dict[str, Any]) -> dict[str, Any]:
    for name in ("model", "optimizer"):
        if not isinstance(saved[name], dict):
            raise UserError(f"config.{name} must be a group of keys")
    old, optimizer = saved["model"], dict(saved["optimizer"])
    whitening = old.get("whitening", {})
    if not isinstance(whitening, dict):
        raise UserError("config.model.whitening must be a group of keys")
    family = old.get("name", "cnn")
    known = {key for names in _OF_FAMILY.values() for key in names} | {"whitening"}
    unknown = sorted(str(key) for key in old if key not in known)
    if unknown:
        raise UserError(f"config.model.{unknown[0]!r} is not a key of version 1".replace("'", ""))
    model = {key: old[key] for key in _OF_FAMILY.get(family, ("name",)) if key in old}
    model["whitening"] = whitening.get("enabled", False)
    init = {f"whitening_{key}": whitening[key] for key in ("images", "epsilon") if key in whitening}
    rules = list(_rules(optimizer, whitening, model))
    return {**saved, "model": model, "init": init, "optimizer": {**optimizer, "rules": rules}}


def _rules(
    optimizer: dict[str, Any], whitening: dict[str, Any], model: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rules that replace keys of version 1, which are removed. A rate of 1 needs no rule."""
    has_norm = model.get("name") == "speedrun" or any(
        isinstance(block, dict) and block.get("batch_norm") for block in model.get("blocks", ())
    )
    norm, head = optimizer.pop("norm_bias_rate", 1.0), optimizer.pop("head_rate", 1.0)
    stem = whitening.get("bias_rate", 1.0)
    if norm != 1 and has_norm:
        yield {"path": "batch_normalization_.*/bias", "rate": norm}
    if head != 1:
        yield {"path": "head/.*", "rate": head}
    if whitening.get("enabled") and stem == 0:
        yield {"path": "stem/bias", "frozen": True}
    elif whitening.get("enabled") and stem != 1:
        yield {"path": "stem/bias", "rate": stem}
