"""Writes a typed config as a config file that spells out what differs from the defaults."""

import dataclasses
import json
from typing import Any

from cifar_jax.config import keys
from cifar_jax.config.schema import Config


def of(config: Config, what: str, command: str) -> str:
    """The text of a config file.

    Args:
      what: the first line of its docstring.
      command: how to run it.
    """
    lines = [f'"""{_escaped(what)}', "", _escaped(command), '"""', "", "from configs import base"]
    lines += ["", "", "def get_config():", "    config = base.get_config()"]
    model = [_shown(config.model.name), *_arguments(config.model, skip="name")]
    lines += ["    config.model = base.model(", *(f"        {item}," for item in model), "    )"]
    lines += [f"    config.{line}" for line in _assignments(config, "")]
    return "\n".join([*lines, "    return config", ""])


def _assignments(section: Any, place: str) -> list[str]:
    found = []
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{place}{field.name}"
        if name == "model":
            continue
        if dataclasses.is_dataclass(value):
            found += _assignments(value, f"{name}.")
        elif value != field.default and not keys.known(field).machine:
            found.append(f"{name} = {_value(value, keys.known(field), 1)}")
    return found


def _arguments(section: Any, skip: str = "") -> list[str]:
    """What a call must be given to make a section; what has no default comes first, in order."""
    found = []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if field.name == skip or value == field.default:
            continue
        shown = _value(value, keys.known(field), 2)
        found.append(shown if field.default is keys.REQUIRED else f"{field.name}={shown}")
    return found


def _value(value: Any, key: keys.Key, level: int) -> str:
    """A value as Python; items that a function makes stand on lines of their own."""
    if not isinstance(value, tuple) or not key.maker or not value:
        return _shown(value)
    maker, indent = key.maker.partition("(")[0], "    " * level
    items = (f"{indent}    {maker}({', '.join(_arguments(item))}),\n" for item in value)
    return f"(\n{''.join(items)}{indent})"


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
