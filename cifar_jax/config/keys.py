"""Tools to write and read the schema: dataclasses whose fields carry a check and a meaning."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from cifar_jax.forms import Check


class Needs(NamedTuple):
    """When a key has an effect: if its neighbor `key` has one of `values`.

    Without `values`, the neighbor must be on: not False, 0 or empty.
    """

    key: str
    values: tuple[Any, ...] = ()

    def met(self, section: Any) -> bool:
        """Whether `section`, which holds both keys, meets the condition."""
        value = getattr(section, self.key)
        return value in self.values if self.values else bool(value)


class Key(NamedTuple):
    """Everything about a key except its default."""

    meaning: str
    check: Check | None = None  # None: it holds sections, whose keys have checks
    needs: Needs | None = None
    factor: bool = False  # multiplies gradients, updates or logits: a large one diverges
    machine: bool = False  # depends on the machine and changes no result
    maker: str = ""  # of a tuple of sections: how to make an item, "base.rule(...)"


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
    """Declares a field of a section.

    Args:
      default: the value; `REQUIRED`; or, for a nested section, its class.
      check: what the value must pass; None for sections and tuples of sections.
      meaning: the description in docs/config.md.
    """
    metadata = {"key": Key(meaning, check, needs, factor, machine, maker)}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def known(field: dataclasses.Field[Any]) -> Key:
    """The `Key` of a field."""
    return field.metadata["key"]


def item_class(field: dataclasses.Field[Any]) -> type | None:
    """The class of the items if the field is a tuple of sections, else None."""
    arguments = get_args(field.type) if get_origin(field.type) is tuple else ()
    item = arguments[0] if arguments else None
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None


def is_optional(field: dataclasses.Field[Any]) -> bool:
    """Whether a key may be left out, which its default None says."""
    return field.default is None


class Leaf(NamedTuple):
    """One value of a config."""

    name: str  # "model.blocks[0].filters"
    value: Any
    key: Key
    section: Any  # the section that holds it


def leaves(section: Any, place: str = "") -> Iterator[Leaf]:
    """Yields every value in a section and its nested sections, except keys that are left out."""
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
    """All values: `{"optimizer.learning_rate": 0.001, "model.blocks[0].filters": 32, ...}`."""
    return {leaf.name: leaf.value for leaf in leaves(section)}


def differing(configs: Sequence[Any], missing: str) -> dict[str, list[Any]]:
    """The keys in which configs differ, except machine keys, each with its value in each config.

    Args:
      missing: stands for the value in a config that lacks the key.
    """
    found = [flat(config) for config in configs]
    ignored = {leaf.name for config in configs for leaf in leaves(config) if leaf.key.machine}
    names = list(dict.fromkeys(itertools.chain(*found)))
    sections = [name.partition(".")[0] for name in names]
    names.sort(key=lambda name: sections.index(name.partition(".")[0]))  # a section in one piece
    values = {n: [each.get(n, missing) for each in found] for n in names if n not in ignored}
    return {name: row for name, row in values.items() if any(v != row[0] for v in row)}


def differences(saved: Any, asked: Any) -> list[str]:
    """`["config.key: old -> new", ...]` for all keys that differ, except machine keys."""
    changed = differing([saved, asked], "(no such key)")
    return [f"config.{name}: {old} -> {new}" for name, (old, new) in changed.items()]


def plain(value: Any) -> Any:
    """A section as dicts and lists, ready for JSON, without the keys that are left out."""
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
