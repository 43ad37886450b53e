"""How the schema is written down, and read: dataclasses whose fields carry check and meaning."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from cifar_jax.forms import Check


class Needs(NamedTuple):
    """When a key has an effect: its neighbor `key` has one of `values`, or, with none, is on."""

    key: str
    values: tuple[Any, ...] = ()

    def met(self, section: Any) -> bool:
        value = getattr(section, self.key)
        return value in self.values if self.values else bool(value)


class Key(NamedTuple):
    """What is known of a key besides its default."""

    meaning: str
    check: Check | None = None  # None: it holds sections, which have checks of their own
    needs: Needs | None = None
    factor: bool = False  # it multiplies gradients, updates or logits
    machine: bool = False  # it says where things are on a machine and changes no result
    maker: str = ""  # of tuples of sections: what a config file makes an item with


REQUIRED = dataclasses.MISSING


def key(
    default: Any,
    check: Check | None,
    meaning: str,
    *,
    needs: Needs | None = None,
    factor: bool = False,
    machine: bool = False,
    maker: str = "",
) -> Any:
    """A field of a section; a section within takes a class as its default."""
    metadata = {"key": Key(meaning, check, needs, factor, machine, maker)}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def known(field: dataclasses.Field[Any]) -> Key:
    """What the schema says of a field."""
    return field.metadata["key"]


def item_class(field: dataclasses.Field[Any]) -> type | None:
    """The section that the items of a tuple are; None for any other field."""
    arguments = get_args(field.type) if get_origin(field.type) is tuple else ()
    item = arguments[0] if arguments else None
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None


def is_optional(field: dataclasses.Field[Any]) -> bool:
    """True for a key that may be left unsaid: its default is None."""
    return field.default is None


class Leaf(NamedTuple):
    """A value of a config."""

    name: str  # "model.blocks[0].filters"
    value: Any
    key: Key
    section: Any  # that holds it


def leaves(section: Any, place: str = "") -> Iterator[Leaf]:
    """Every value below a section."""
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{place}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.")
        elif item_class(field):
            for i, item in enumerate(value):
                yield from leaves(item, f"{name}[{i}].")
        elif value is not None or not is_optional(field):
            yield Leaf(name, value, known(field), section)


def flat(section: Any) -> dict[str, Any]:
    """`{"optimizer.learning_rate": 0.001, "model.blocks[0].filters": 32, ...}`."""
    return {leaf.name: leaf.value for leaf in leaves(section)}


def differences(saved: Any, asked: Any) -> list[str]:
    """One text for each key in which two configs differ, machine keys aside: `key: old -> new`."""
    old, new = flat(saved), flat(asked)
    ignored = {leaf.name for leaf in leaves(asked) if leaf.key.machine}
    missing = "(no such key)"
    return [
        f"config.{name}: {old.get(name, missing)} -> {new.get(name, missing)}"
        for name in dict.fromkeys([*old, *new])
        if name not in ignored and old.get(name, missing) != new.get(name, missing)
    ]


def plain(value: Any) -> Any:
    """A section as JSON has it: dicts and lists; keys that are left unsaid are absent."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {
            field.name: plain(item)
            for field, item in fields
            if item is not None or not is_optional(field)
        }
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
