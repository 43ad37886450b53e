"""Reads the file given by `--config` and checks overrides; each fault is one line."""

import contextlib
import dataclasses
import difflib
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_flags import config_flags, config_path

from cifar_jax.config import convert, keys, schema, validation
from cifar_jax.errors import UserError

_BAD_VALUE = re.compile(r"flag --config\.([^=]+)=(.*?): ", re.DOTALL)  # absl's wording
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")
_MODULE = "config_file_of_the_run"  # in sys.modules, where dataclasses look up their module


class Parser(config_flags.ConfigFileFlagParser):
    """The absl parser of `--config`, which also checks the keys that are overridden."""

    def __init__(self, arguments: list[str]) -> None:
        """Keeps `arguments`, the command line. The list may still be filled until `parse` runs."""
        super().__init__("config")
        self._arguments = arguments

    def parse(self, path: str) -> ConfigDict:
        """Reads `FILE` or `FILE:ARGUMENT` and returns its config, locked.

        Raises:
          UserError: see `load`; or the command line overrides a key that does not exist.
        """
        config = load(path)
        for name in overridden(self._arguments):
            _check_key(config, name)
        return config.lock()


def overridden(arguments: list[str]) -> list[str]:
    """The keys that a command line sets: "epochs" for `--config.epochs=3`."""
    return [match[1] for match in map(_OVERRIDE.match, arguments) if match]


def typed(
    config: ConfigDict, families: convert.Families, arguments: list[str] | None = None
) -> schema.Config:
    """Converts a config to typed values and checks them.

    Args:
      arguments: the command line whose overrides `config` contains.

    Raises:
      UserError: a value is invalid, keys contradict each other, or an override has no effect.
    """
    checked = validation.check(convert.parse(convert.plain(config), families))
    fault = validation.without_effect(checked, set(overridden(arguments or [])))
    if fault:
        raise UserError(fault)
    return checked


def load(given: str) -> ConfigDict:
    """Runs a config file and returns what its `get_config()` returns.

    Args:
      given: `FILE`, or `FILE:ARGUMENT` for `get_config(ARGUMENT)`.

    Raises:
      UserError: there is no such file, it cannot be read, it fails, or it returns no config.
    """
    path, arguments = _split(given)
    if not os.path.isfile(path):
        raise UserError(f"--config={path} is not a file: choose one from configs/")
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise UserError(f"--config={path} cannot be read: {error.strerror}") from error
    module = types.ModuleType(_MODULE)
    module.__file__ = path
    sys.modules[_MODULE] = module
    # The file is the user's code: whatever it raises is reported as an error in that file.
    try:
        with _importable(path):
            exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _of_the_file(path, error) from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"--config={path} has no get_config(): see configs/base.py")
    try:
        with _importable(path):
            config = get_config(*arguments)
    except (Exception, SystemExit) as error:
        if isinstance(error, TypeError) and not _lines(path, error):  # the call itself failed
            remedy = "leave out what follows the colon" if arguments else "give it after a colon"
            raise UserError(f"--config={given}: {error}: {remedy}") from error
        raise _of_the_file(path, error) from error
    if not isinstance(config, ConfigDict):
        returned = " ".join(repr(config).split())
        raise UserError(
            f"--config={path}: get_config() must return a config: it returns {returned:.60}"
        )
    unfrozen = ConfigDict(config) if isinstance(config, FrozenConfigDict) else config
    # Copies each item of a tuple: if one object were there twice, an override would change both.
    return convert.to_config_dict(convert.plain(unfrozen))


def run_name(given: str) -> str:
    """The name of a run of this `--config`: "final", or "sweep-wide" for `sweep.py:wide`."""
    path, arguments = _split(given)
    name = os.path.splitext(os.path.basename(path))[0]
    return "-".join([name, *(re.sub(r"[^\w.,=+-]+", "-", argument) for argument in arguments)])


def explain_value(config: ConfigDict, fault: str, families: convert.Families) -> str | None:
    """Explains absl's message `fault` if it is about the value of an override, else None."""
    bad = _BAD_VALUE.match(fault)
    if not bad:
        return None
    name, text = bad.groups()
    inside = [known for known in _keys(config) if known.startswith(f"{name}.")]
    if inside:
        return _group(name, inside[0])
    key = _schema_of(config, name, families)
    return f"config.{name} must be {key.check.expected}: it is {text!r}" if key else None


def _schema_of(config: ConfigDict, name: str, families: convert.Families) -> Any:
    """The `Key` of the value with this name; None if there is none."""
    cls, key = schema.Config, None
    for part in re.sub(r"\[\d+\]", "", name).split("."):
        field = {f.name: f for f in dataclasses.fields(cls)}.get(part)
        if field is None:
            return None
        key = keys.known(field)
        if part == "model" and cls is schema.Config:
            cls = families.config_class(config.model.name) or schema.Model
        else:
            cls = keys.item_class(field) or field.default_factory
        if not dataclasses.is_dataclass(cls):
            return key if key.check else None
    return None


def _split(given: str) -> tuple[str, list[str]]:
    """The path and at most one argument, split at the first colon as in ml_collections."""
    path, colon, argument = given.partition(":")
    return (given, []) if os.path.isfile(given) or not colon else (path, [argument])


@contextlib.contextmanager
def _importable(path: str) -> Iterator[None]:
    """Lets a config file import its neighbors, as in `from configs import base`.

    `python main.py` finds them anyway, next to main.py; the installed command `cifar-jax` does not.
    """
    root = pathlib.Path(path).resolve().parent
    while (root / "__init__.py").is_file():
        root = root.parent
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def _lines(path: str, error: BaseException) -> list[int | None]:
    return [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]


def _of_the_file(path: str, error: BaseException) -> UserError:
    """Reports what the config file raised, and on which line."""
    lines = _lines(path, error)
    at = f" line {lines[-1]}" if lines else ""
    # ml_collections appends the whole config, which buries the message.
    text = re.sub(r'Other fields present: .*}"(\\n)?', "", str(error), flags=re.DOTALL)
    return UserError(f"--config={path}{at}: {type(error).__name__}: {' '.join(text.split())}")


def _keys(value: Any, place: str = "") -> list[str]:
    """The keys of all values, including those inside tuples."""
    if isinstance(value, ConfigDict):
        names = [(f"{place}.{name}" if place else name, item) for name, item in value.items()]
        return [key for name, item in names for key in _keys(item, name)]
    if isinstance(value, tuple) and any(isinstance(item, ConfigDict) for item in value):
        return [key for i, item in enumerate(value) for key in _keys(item, f"{place}[{i}]")]
    return [place]


def _group(key: str, inside: str) -> str:
    return f"config.{key} is a group of keys: set one, such as config.{inside}"


def _check_key(config: ConfigDict, key: str) -> None:
    """Raises UserError if `key`, such as "model.blocks[0].pool", does not exist or is no value."""
    fields: tuple[Any, ...] = (key,)
    with contextlib.suppress(ValueError):  # not even a path
        fields = config_path.split(key)
    holder: Any = None
    value: Any = config
    for field in fields:
        holder = value
        inside = _inside(holder)
        if not isinstance(field, str | int) or field not in inside:
            raise UserError(f"config.{key} is not a key of the config: {_nearest(config, key)}")
        value = inside[field]
    if isinstance(value, ConfigDict) and isinstance(holder, tuple):
        raise UserError(_group(key, f"{key}.{next(iter(value))}"))
    if isinstance(holder, tuple):
        whole = key.rpartition("[")[0]
        raise UserError(f"config.{key} is an item of a tuple: set all of config.{whole}")


def _inside(value: Any) -> dict[Any, Any]:
    """The contents of a part of a config, by key, or by index counted from either end."""
    if isinstance(value, tuple):
        return dict(enumerate(value)) | dict(enumerate(value, -len(value)))
    return dict(value.items()) if isinstance(value, ConfigDict) else {}


def _nearest(config: ConfigDict, key: str) -> str:
    """A hint for a misspelled key: one whose last part is alike, or else one that is alike."""
    known = _keys(config)
    ends = [name.rpartition(".")[2] for name in known]
    like = difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)
    namesakes = [name for name, end in zip(known, ends, strict=True) if end in like]
    # Of namesakes, the first in the config's order wins a tie; get_close_matches takes the last.
    alike = difflib.SequenceMatcher
    nearest = sorted(namesakes, key=lambda name: -alike(None, name, key).ratio())
    nearest = nearest or difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    return f"did you mean config.{nearest[0]}?" if nearest else "see docs/config.md"
