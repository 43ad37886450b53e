"""Writes docs/config.md: all config keys, from the schema and the files of the networks."""

import dataclasses
import pathlib
from typing import Any

from cifar_jax import models
from cifar_jax.config import keys, schema
from cifar_jax.models import cnn

PATH = pathlib.Path(__file__).parent.parent / "docs" / "config.md"
_HEAD = """# Every key of a config

`make results` generates this page from [`schema.py`](../cifar_jax/config/schema.py) and the files
of the networks; a test checks that it is up to date.

A config file starts from `base.get_config()` and changes some keys. The command line can override
any key: `--config.optimizer.learning_rate=0.01`, `--config.model.blocks[0].filters=96`,
`--config.model.widths=(64,128,128)`. A key that does not exist is refused, and so is an override
that has no effect, such as `plateau.patience` while `plateau.enabled` is False. Keys marked
*machine* depend on the machine and do not change the result: a run may resume with other values.
"""


def text() -> str:
    """The content of docs/config.md."""
    parts = [_HEAD, _section("The run", "config", schema.Config)]
    for field in dataclasses.fields(schema.Config):
        cls = field.default_factory
        if isinstance(cls, type) and cls is not schema.Model:
            parts.append(_section(_summary(cls), f"config.{field.name}", cls))
    parts.append(
        _section(_summary(schema.Rule), "config.optimizer.rules[i]", schema.Rule)
        + "\n`base.rule(path, ...)` makes one. A rule changes only the settings it is given.\n"
    )
    parts.append(
        _section(_summary(schema.Range), "config.search.space[i]", schema.Range)
        + "\n`base.choose(key, ...)` makes one.\n"
    )
    for name in models.names():
        family = models.config_class(name)
        assert family is not None
        title = f"The network `{name}`: {_summary(family)[0].lower()}{_summary(family)[1:]}"
        parts.append(
            _section(title, "config.model", family)
            + f"\n`config.model = base.model({name!r}, ...)` chooses it.\n"
        )
    parts.append(
        _section("A block of the network `cnn`", "config.model.blocks[i]", cnn.ConvBlock)
        + "\n`base.conv_block(filters, ...)` makes one.\n"
    )
    return "\n".join(parts)


def _summary(cls: type[Any]) -> str:
    return (cls.__doc__ or "").partition("\n")[0].rstrip(".")


def _section(title: str, place: str, cls: type[Any]) -> str:
    rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        key = keys.known(field)
        if key.check is None and not keys.item_class(field):
            continue  # a nested section, which has its own table
        values = key.check.expected if key.check else f"a tuple of `{key.maker}`"
        rows.append(
            f"| `{place}.{field.name}` | {_default(field)} | {_cell(values)} | {_meaning(key)} |"
        )
    return f"## {title}\n\n" + "\n".join(rows) + "\n"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is keys.REQUIRED:
        return "required"
    if field.default is None:
        return "unset"
    value = field.default
    if keys.item_class(field):
        return f"{len(value)} blocks" if value else "`()`"
    return f"`{value!r}`"


def _meaning(key: keys.Key) -> str:
    text = _cell(key.meaning)
    if key.needs:
        wanted = " or ".join(map(str, key.needs.values)) or "on"
        text += f" (only while `{key.needs.key}` is {wanted})"
    return f"{text} *machine*" if key.machine else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(text())
