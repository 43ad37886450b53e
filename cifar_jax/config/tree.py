"""A config as other shapes of data, and two configs against each other."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

# Where things lie, and what is measured, on the machine at hand: they do not change the result,
# so a run may be resumed elsewhere with other values of these keys.
MACHINE_KEYS = ("data.dir", "data.archive", "data.cache_dir", "data.download", "profile")


def flat(config: ConfigDict) -> dict[str, Any]:
    """`config` as `{"optimizer.learning_rate": 0.001, ...}`; tuples stay values."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            leaves |= {f"{key}.{rest}": leaf for rest, leaf in flat(value).items()}
        else:
            leaves[key] = value
    return leaves


def differences(saved: ConfigDict, asked: ConfigDict) -> list[str]:
    """One text per key, machine keys aside, in which two configs differ: `key: saved -> asked`."""
    old, new = flat(saved), flat(asked)
    missing = "(no such key)"
    return [
        f"config.{key}: {plain(old.get(key, missing))} -> {plain(new.get(key, missing))}"
        for key in sorted(old.keys() | new.keys())
        if key not in MACHINE_KEYS and plain(old.get(key)) != plain(new.get(key))
    ]


def plain(value: Any) -> Any:
    """A config as JSON has it: configs as dicts, tuples as lists."""
    if isinstance(value, ConfigDict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def from_plain(value: dict[str, Any]) -> ConfigDict:
    """The config that `plain` made `value` of."""

    def restore(item: Any) -> Any:
        if isinstance(item, dict):
            return ConfigDict({key: restore(inner) for key, inner in item.items()})
        return tuple(restore(inner) for inner in item) if isinstance(item, list) else item

    return restore(value)


def complete(value: Any, defaults: Any) -> Any:
    """A plain config with the default of every key that it lacks, as one saved before it existed.

    A list of configs takes the defaults of the first in the defaults' list.
    """
    if isinstance(value, dict) and isinstance(defaults, dict):
        return defaults | {key: complete(item, defaults.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(defaults, list):
        return [complete(item, defaults[0] if defaults else None) for item in value]
    return value


def misplaced(value: Any, defaults: Any, place: str = "config") -> Iterator[str]:
    """Where a plain config is not built like `defaults`: it may lack keys, but has no others."""
    if isinstance(defaults, dict) and isinstance(value, dict):
        for key, item in value.items():
            if key in defaults:
                yield from misplaced(item, defaults[key], f"{place}.{key}")
            else:
                yield f"{place}.{repr(key)[1:-1]} is no key of this version"
    elif isinstance(defaults, dict) or isinstance(value, dict):
        yield f"{place} must be {'a' if isinstance(defaults, dict) else 'no'} group of keys"
    elif isinstance(value, list):
        first = defaults[0] if isinstance(defaults, list) and defaults else None
        for i, item in enumerate(value):
            yield from misplaced(item, first, f"{place}[{i}]")
