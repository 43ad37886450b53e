"""What is wrong with a config file, or with what the command line overrides, in one line."""

import difflib
import os
import re
import runpy
import traceback

from ml_collections import ConfigDict

from cifar_jax.config import explain_text
from cifar_jax.config_tree import flat

# What the code of a config file raises on the mistakes people make in one.
FAULTS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
          OSError, RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip
_BAD_VALUE = re.compile(r"flag --config\.([^=]+)=(.*?): ", re.DOTALL)  # as absl says it


def explain(path: str, keys: list[str], fault: str) -> str | None:
    """Says what is wrong with `--config=path` or overrides of `keys` ("optimizer.name").

    None if it is something else.

    Args:
      fault: absl's words.
    """
    if not os.path.isfile(path):
        return f"--config={path} is no file: configs/ has the experiments"
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            return f"--config={path} has no get_config(): configs/base.py shows one"
        config = get_config()
    except FAULTS as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        at = f" line {lines[-1]}" if lines else ""
        # ml_collections lists the whole config, which buries what it has to say.
        text = re.sub(r'Other fields present: .*}"(\\n)?', "", str(error), flags=re.DOTALL)
        return f"--config={path}{at}: {type(error).__name__}: {' '.join(text.split())}"
    if not isinstance(config, ConfigDict):
        return f"--config={path}: get_config() must return a config: it returns {config!r}"
    bad = _BAD_VALUE.match(fault)
    known = _keys(config)
    reasons = [_unknown_key(known, key) for key in keys]
    reasons += [_bad_value(known, bad[1], bad[2])] if bad else []
    return next(filter(None, reasons), None)


def _keys(config: ConfigDict) -> list[str]:
    """The keys of all values, those in blocks included."""
    values = flat(config)
    blocks = values.get("model.blocks")
    for i, block in enumerate(blocks if isinstance(blocks, tuple | list) else ()):
        if isinstance(block, ConfigDict):
            values |= {f"model.blocks[{i}].{name}": value for name, value in flat(block).items()}
    return list(values)


def _unknown_key(known: list[str], key: str) -> str | None:
    """What is wrong with `key`, with the nearest key that exists; None if nothing is."""
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return None
    last = key.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    nearest = namesakes or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean config.{nearest[0]}?" if nearest else "configs/base.py has them all"
    return f"config.{key} is no key of the config: {hint}"


def _bad_value(known: list[str], key: str, text: str) -> str | None:
    """What is wrong with `text` as the value of `key`."""
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        return f"config.{key} is a group of keys: set one, such as config.{inside[0]}"
    return explain_text(key, text)
