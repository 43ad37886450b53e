"""The file behind `--config`, and what the command line overrides: every fault in one line."""

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

_BAD_VALUE = re.compile(r"flag --config\.([^=]+)=(.*?): ", re.DOTALL)  # as absl says it
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")
_MODULE = "config_file_of_the_run"  # in sys.modules, where dataclasses look for their module


class Parser(config_flags.ConfigFileFlagParser):
    """absl's parser of `--config`: reads the file, and knows what will be overridden."""

    def __init__(self, arguments: list[str]) -> None:
        """Takes the command line, which may still be filled before the first `parse`."""
        super().__init__("config")
        self._arguments = arguments

    def parse(self, path: str) -> ConfigDict:
        """The locked config of `FILE` or `FILE:ARGUMENT`.

        Raises:
          UserError: see `load`; or a key that is overridden is none of the config's.
        """
        config = load(path)
        for name in overridden(self._arguments):
            _check_key(config, name)
        return config.lock()


def overridden(arguments: list[str]) -> list[str]:
    """The keys that a command line sets: "epochs" of `--config.epochs=3`."""
    return [match[1] for match in map(_OVERRIDE.match, arguments) if match]


def typed(
    config: ConfigDict, families: convert.Families, arguments: list[str] | None = None
) -> schema.Config:
    """What a run takes: the checked, typed values of a config.

    Args:
      arguments: the command line that has overridden some of it.

    Raises:
      UserError: a value will not do, keys contradict each other, or one that the command line sets
        changes nothing.
    """
    checked = validation.check(convert.parse(convert.plain(config), families))
    fault = validation.without_effect(checked, set(overridden(arguments or [])))
    if fault:
        raise UserError(fault)
    return checked


def load(given: str) -> ConfigDict:
    """The config that `get_config()` of a file returns.

    Args:
      given: `FILE`, or `FILE:ARGUMENT` for `get_config(ARGUMENT)`.

    Raises:
      UserError: there is no such file, it cannot be read or run, or returns something else.
    """
    path, arguments = _split(given)
    if not os.path.isfile(path):
        raise UserError(f"--config={path} is no file: configs/ has the experiments")
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise UserError(f"--config={path} cannot be read: {error.strerror}") from error
    module = types.ModuleType(_MODULE)
    module.__file__ = path
    sys.modules[_MODULE] = module
    # Any exception and exit of the user's own code is theirs to read; ours is not inside.
    try:
        with _importable(path):
            exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _of_the_file(path, error) from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"--config={path} has no get_config(): configs/base.py shows one")
    try:
        with _importable(path):
            config = get_config(*arguments)
    except (Exception, SystemExit) as error:
        if isinstance(error, TypeError) and not _lines(path, error):  # of the call itself
            remedy = "leave out what follows the colon" if arguments else "name it behind a colon"
            raise UserError(f"--config={given}: {error}: {remedy}") from error
        raise _of_the_file(path, error) from error
    if not isinstance(config, ConfigDict):
        returned = " ".join(repr(config).split())
        raise UserError(
            f"--config={path}: get_config() must return a config: it returns {returned:.60}"
        )
    unfrozen = ConfigDict(config) if isinstance(config, FrozenConfigDict) else config
    # Each item of a tuple becomes one of its own, or an override of one would change its twins.
    return convert.to_config_dict(convert.plain(unfrozen))


def run_name(given: str) -> str:
    """What a run of this `--config` is called: "final", or "sweep-wide" of `sweep.py:wide`."""
    path, arguments = _split(given)
    name = os.path.splitext(os.path.basename(path))[0]
    return "-".join([name, *(re.sub(r"[^\w.,=+-]+", "-", argument) for argument in arguments)])


def explain_value(config: ConfigDict, fault: str, families: convert.Families) -> str | None:
    """What is wrong with an override's value; None if `fault`, in absl's words, is not of that."""
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
    """The `Key` of the value that has this name; None: it has none."""
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
    """The path, and the argument if there is one; as ml_collections splits, by the first colon."""
    path, colon, argument = given.partition(":")
    return (given, []) if os.path.isfile(given) or not colon else (path, [argument])


@contextlib.contextmanager
def _importable(path: str) -> Iterator[None]:
    """Lets a config import its neighbors: `configs/final.py` says `from configs import base`.

    `python main.py` finds those beside main.py; the installed command `cifar-jax` does not.
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
    """What the code of the file raised, and where."""
    lines = _lines(path, error)
    at = f" line {lines[-1]}" if lines else ""
    # ml_collections lists the whole config, which buries what it has to say.
    text = re.sub(r'Other fields present: .*}"(\\n)?', "", str(error), flags=re.DOTALL)
    return UserError(f"--config={path}{at}: {type(error).__name__}: {' '.join(text.split())}")


def _keys(value: Any, place: str = "") -> list[str]:
    """The keys of all values, those within tuples included."""
    if isinstance(value, ConfigDict):
        names = [(f"{place}.{name}" if place else name, item) for name, item in value.items()]
        return [key for name, item in names for key in _keys(item, name)]
    if isinstance(value, tuple) and any(isinstance(item, ConfigDict) for item in value):
        return [key for i, item in enumerate(value) for key in _keys(item, f"{place}[{i}]")]
    return [place]


def _group(key: str, inside: str) -> str:
    return f"config.{key} is a group of keys: set one, such as config.{inside}"


def _check_key(config: ConfigDict, key: str) -> None:
    """Refuses a key ("model.blocks[0].pool") that is none, with the nearest one that exists."""
    fields: tuple[Any, ...] = (key,)
    with contextlib.suppress(ValueError):  # no path at all
        fields = config_path.split(key)
    holder: Any = None
    value: Any = config
    for field in fields:
        holder = value
        inside = _inside(holder)
        if not isinstance(field, str | int) or field not in inside:
            raise UserError(f"config.{key} is no key of the config: {_nearest(config, key)}")
        value = inside[field]
    if isinstance(value, ConfigDict) and isinstance(holder, tuple):
        raise UserError(_group(key, f"{key}.{next(iter(value))}"))
    if isinstance(holder, tuple):
        whole = key.rpartition("[")[0]
        raise UserError(f"config.{key} is an item of a tuple: set all of config.{whole}")


def _inside(value: Any) -> dict[Any, Any]:
    """What a part of a config holds, by key or by index from either end."""
    if isinstance(value, tuple):
        return dict(enumerate(value)) | dict(enumerate(value, -len(value)))
    return dict(value.items()) if isinstance(value, ConfigDict) else {}


def _nearest(config: ConfigDict, key: str) -> str:
    known = _keys(config)
    last = key.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    nearest = namesakes or difflib.get_close_matches(key, known, n=1)
    return f"did you mean config.{nearest[0]}?" if nearest else "docs/config.md has them all"
