"""Converts a `ConfigDict` or JSON to typed values and back; reports each fault on a line."""

import dataclasses
import difflib
import struct
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ml_collections import ConfigDict

from cifar_jax.config import keys, schema
from cifar_jax.errors import UserError
from cifar_jax.forms import Check

# Steps compute in float32, where smaller numbers become 0 and larger ones infinite. The NaN that
# follows, say from a mixup of 1e-38, would be blamed on the learning rate.
_LEAST, _MOST = 1e-30, 1e30


@runtime_checkable
class Families(Protocol):
    """The network families that `config.model.name` may name, such as the package `models`."""

    def names(self) -> list[str]: ...

    def config_class(self, name: str) -> type[schema.Model] | None: ...


def parse(value: Mapping[str, Any], families: Families, *, lenient: bool = False) -> schema.Config:
    """Makes a typed config of plain values. Contradictions are left to `validation.py`.

    Args:
      value: nested dicts, tuples, lists and scalars, from `plain` or from JSON.
      lenient: whether a missing key takes its default, as for a config older than the key.

    Raises:
      UserError: there are faults; the message has a line for each, with the key and the remedy.
    """
    reader = _Reader(families, lenient)
    config = reader.section(schema.Config, value, "config")
    if missing := reader.missing:
        others = f", and {len(missing) - 1} more keys" if missing[1:] else ""
        reader.faults.append(f"{missing[0]} is missing{others}: start from base.get_config()")
    if reader.faults:
        raise UserError("\n".join(reader.faults))
    return config


def plain(value: Any) -> Any:
    """Converts a `ConfigDict` to dicts. A tuple that holds one object twice gets two copies."""
    if isinstance(value, ConfigDict):
        return {name: plain(item) for name, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def to_config_dict(value: Any) -> Any:
    """Converts a section or plain values to a `ConfigDict`, as config files use it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        present = [(f, item) for f, item in fields if item is not None or not keys.is_optional(f)]
        return ConfigDict({field.name: to_config_dict(item) for field, item in present})
    if isinstance(value, Mapping):
        return ConfigDict({name: to_config_dict(item) for name, item in value.items()})
    return tuple(map(to_config_dict, value)) if isinstance(value, tuple | list) else value


def missed(check: Check, value: Any) -> str | None:
    """What `value` should be, such as "a number above 0"; None if it passes the check.

    A float must also pass after rounding to float32.
    """
    if not check.test(value):
        return check.expected
    if not isinstance(value, float) or value == 0:
        return None
    if _LEAST <= abs(value) <= _MOST:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
        if check.test(rounded):
            return None
    return f"{check.expected} in float32"


class _Reader:
    """Reads sections and collects their faults."""

    def __init__(self, families: Families, lenient: bool):
        self._families, self._lenient = families, lenient
        self.faults: list[str] = []
        self.missing: list[str] = []

    def section(self, cls: type[Any], value: Any, place: str, owner: str = "a config") -> Any:
        """Reads a mapping as a `cls`; None if any fault has been found so far."""
        if not isinstance(value, Mapping):
            self.faults.append(f"{place} must be a group of keys: it is {_shown(value)}")
            return None
        fields = {field.name: field for field in dataclasses.fields(cls)}
        self._refuse_unknown(value, list(fields), place, owner)
        values = {}
        for name, field in fields.items():
            if name in value:
                values[name] = self._field(field, value[name], f"{place}.{name}")
            elif not keys.is_optional(field) and not (self._lenient and _has_default(field)):
                self._miss(f"{place}.{name}", owner, list(fields))
        return cls(**values) if not self.faults and not self.missing else None

    def _field(self, field: dataclasses.Field[Any], value: Any, place: str) -> Any:
        key, item = keys.known(field), keys.item_class(field)
        if place == "config.model":
            return self._model(value)
        if _is_section(field):
            return self.section(field.default_factory, value, place)  # pyright: ignore
        if item:
            return self._items(item, value, place, key.maker)
        assert key.check is not None, place
        if text := missed(key.check, value):
            self.faults.append(f"{place} must be {text}: it is {_shown(value)}")
            return None
        if isinstance(value, list):
            return _tuples(value)
        return float(value) if field.type in (float, float | None) and _is_int(value) else value

    def _model(self, value: Any) -> Any:
        name = value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or "name" not in value:
            return self.section(schema.Model, value, "config.model", "a network")
        cls = self._families.config_class(name) if isinstance(name, str) else None
        if cls is None:
            names = ", ".join(map(repr, self._families.names()))
            self.faults.append(f"config.model.name must be one of {names}: it is {_shown(name)}")
            return None
        return self.section(cls, value, "config.model", f"the network {name!r}")

    def _items(self, cls: type[Any], value: Any, place: str, maker: str) -> Any:
        if not isinstance(value, tuple | list):
            self.faults.append(f"{place} must be a tuple of {maker}: it is {_shown(value)}")
            return None
        items = []
        for i, item in enumerate(value):
            if isinstance(item, Mapping):
                items.append(self.section(cls, item, f"{place}[{i}]", maker))
            else:
                self.faults.append(f"{place}[{i}] must be a {maker}: it is {_shown(item)}")
        return tuple(items)

    def _refuse_unknown(
        self, value: Mapping[str, Any], names: list[str], place: str, owner: str
    ) -> None:
        unknown = sorted(_escaped(str(name)) for name in value if name not in names)
        if unknown and owner.startswith("the network"):
            self.faults.append(
                f"{place}.{unknown[0]} is not a key of {owner}, which has {', '.join(names[1:])}: "
                f"a config file sets them with config.model = base.model({owner.split()[-1]})"
            )
            return
        for name in unknown:
            if owner == "a config":
                self.faults.append(f"{place}.{name} is not a key: {nearest(name, names)}")
            else:
                self.faults.append(
                    f"{place}.{name} is not a key of {owner}, which has {', '.join(names)}"
                )

    def _miss(self, place: str, owner: str, names: list[str]) -> None:
        if owner == "a config":
            self.missing.append(place)
        elif not any(" is not a key of the network" in fault for fault in self.faults):
            self.faults.append(f"{place} is missing: {owner} has {', '.join(names)}")


def nearest(name: str, names: list[str]) -> str:
    """A hint for a misspelled key: the closest name, or all names."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]}?" if found else f"the keys are {', '.join(names)}"


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_section(field: dataclasses.Field[Any]) -> bool:
    return field.default_factory is not dataclasses.MISSING


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not keys.REQUIRED or _is_section(field)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _escaped(name: str) -> str:
    """A key on one line; in JSON a key may be any text."""
    return repr(name)[1:-1]


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())
