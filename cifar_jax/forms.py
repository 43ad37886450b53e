"""What a value from outside must be: a config's, or a file's of a workdir.

A form is a `Check` of one value, or it is built like what it describes: `[form]` is a list of any
length, `Table(form)` a JSON object with any keys, and `{"key": form}` one with these keys. A key
that older files lack is `Optional(form)`; keys of newer files are let be.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias


class Damaged(Exception):
    """What was read is not of its form; the message says where, in one line."""


class Check(NamedTuple):
    """Of one value."""

    expected: str  # "a whole number, from 1 to 9"
    test: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Table:
    each: "Form"


@dataclasses.dataclass(frozen=True)
class Optional:
    form: "Form"


Form: TypeAlias = Check | list[Any] | Table | Optional | Mapping[str, Any]

_LEVELS = 32  # of lists and objects within each other: no file of ours has more than five


# ---------------------------------------------------------------------------- checks
def is_number(value: Any) -> bool:
    """True for what a float holds, NaN and infinities aside; a bool is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def whole(low: int, high: int = 2**31 - 1) -> Check:
    """By default up to what JAX counts with, int32."""
    return Check(
        f"a whole number, from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def number(low: float, high: float = math.inf) -> Check:
    bound = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    return Check(f"a number, {bound}", lambda v: is_number(v) and low <= v <= high)


def one_of(*values: Any) -> Check:
    return Check("one of " + ", ".join(map(repr, values)), lambda v: v in values)


def all_of(name: str, check: Check) -> Check:
    return Check(
        f"{name}, each {check.expected}",
        lambda v: isinstance(v, tuple | list) and all(map(check.test, v)),
    )


def or_null(check: Check) -> Check:
    return Check(f"{check.expected}, or null", lambda v: v is None or check.test(v))


POSITIVE = Check("a number above 0", lambda v: is_number(v) and v > 0)
FRACTION = Check("a number from 0 up to but without 1", lambda v: is_number(v) and 0 <= v < 1)
BETWEEN = Check("a number between 0 and 1, both excluded", lambda v: is_number(v) and 0 < v < 1)
FLAG = Check("True or False", lambda v: isinstance(v, bool))
TEXT = Check("a text", lambda v: isinstance(v, str))


# ---------------------------------------------------------------------------- trees
def faults(form: Form, value: Any, place: str = "") -> Iterator[str]:
    """What of `value` is not of `form`: a text each, that begins with where it is."""
    if isinstance(form, Optional):
        yield from faults(form.form, value, place)
    elif isinstance(form, Check):
        if not form.test(value):
            yield f"{place or 'the whole'} must be {form.expected}: it is {shown(value)}"
    elif isinstance(form, list):
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from faults(form[0], item, f"{place}[{i}]")
        else:
            yield f"{place or 'the whole'} must be a list: it is {shown(value)}"
    elif not isinstance(value, dict):
        yield f"{place or 'the whole'} must be an object with keys: it is {shown(value)}"
    elif isinstance(form, Table):
        for key, item in value.items():
            yield from faults(form.each, item, _below(place, shown(key)))
    else:
        for key, inner in form.items():
            if key in value:
                yield from faults(inner, value[key], _below(place, key))
            elif not isinstance(inner, Optional):
                yield f"{_below(place, key)} is missing"


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def shown(value: Any) -> str:
    """`value` in a few characters of one line."""
    if hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
      Damaged: it is none, names a key twice, or holds what could not be written again: NaN,
        infinities, half a character, lists within lists without end.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        too_deep = _levels(value) > _LEVELS
    except ValueError as error:  # of JSON's and UTF-8's
        raise Damaged(" ".join(str(error).split())) from error
    except RecursionError:
        value, too_deep = None, True
    if too_deep:
        raise Damaged(f"it has more than {_LEVELS} levels of lists and objects")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise Damaged(f"{shown(twice)} stands there twice")
    return value


def _levels(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_levels, value.values() if isinstance(value, dict) else value), default=0)


# ---------------------------------------------------------------------------- files
@dataclasses.dataclass(frozen=True)
class Schema:
    """Of one file."""

    form: Form
    remedy: str  # what to do where the file is not of it
    together: Callable[[Any], Iterator[str]] = lambda _: iter(())  # faults of values side by side

    def check(self, value: Any) -> None:
        """Raises Damaged, with the first fault, where `value` is not of this schema."""
        found = list(faults(self.form, value)) or list(self.together(value))
        if found:
            others = f", and {len(found) - 1} more" if found[1:] else ""
            raise Damaged(f"{found[0]}{others}")

    def parse(self, data: bytes) -> Any:
        """The value of a JSON text; raises Damaged where it is not of this schema."""
        value = parse(data)
        self.check(value)
        return value
