"""What is wrong with a config file, or with a key that the command line overrides, in one line."""

import difflib
import re
import runpy
import traceback

from ml_collections import ConfigDict

from cifar_jax.config_tree import flat

# What the code of a config file raises on the mistakes people make in one.
FAULTS = (ArithmeticError, AttributeError, ImportError, LookupError, NameError, OSError,
          SyntaxError, TypeError, ValueError)  # fmt: skip


def explain(path: str, keys: list[str]) -> str | None:
    """Says what is wrong with `--config=path` or overrides of `keys` ("optimizer.name").

    None if the fault is elsewhere, such as in the value of an override.
    """
    try:
        config = runpy.run_path(path)["get_config"]()
    except FileNotFoundError:
        return f"--config={path} does not exist: configs/ has the experiments"
    except FAULTS as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        at = f" line {lines[-1]}" if lines else ""
        # ml_collections lists the whole config, which buries what it has to say.
        text = re.sub(r'Other fields present: .*}"(\\n)?', "", str(error), flags=re.DOTALL)
        return f"--config={path}{at}: {type(error).__name__}: {' '.join(text.split())}"
    return next(filter(None, (_unknown_key(config, key) for key in keys)), None)


def _unknown_key(config: ConfigDict, key: str) -> str | None:
    """What is wrong with `key`, with the nearest key that exists; None if nothing is."""
    known = list(flat(config))
    for i, block in enumerate(config.model.blocks):
        known += [f"model.blocks[{i}].{name}" for name in block]
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return None
    last = key.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    nearest = namesakes or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean config.{nearest[0]}?" if nearest else "configs/base.py has them all"
    return f"config.{key} is no key of the config: {hint}"
