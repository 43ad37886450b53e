"""Checks values from outside: those of a config, and those in the files of a workdir.

A form describes a value. It is a `Check` of a single value, or it mirrors the structure of the
value: `[form]` is a list of any length, `Table(form)` a JSON object with any keys, and
`{"key": form}` one with these keys. `Optional(form)` marks a key that older files lack; unknown
keys are allowed, since newer files may have them.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from cifar_jax.errors import first_of


class Damaged(Exception):
    """A value does not match its form; the message is one line that says where."""


class Check(NamedTuple):
    """What a single value must be."""

    expected: str  # such as "an integer from 1 to 9"
    test: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Table:
    each: "Form"


@dataclasses.dataclass(frozen=True)
class Optional:
    form: "Form"


Form: TypeAlias = Check | list[Any] | Table | Optional | Mapping[str, Any]

_MAX_LEVELS = 32  # of nested lists and objects; this project's files have at most five


# ---------------------------------------------------------------------------- checks
def is_number(value: Any) -> bool:
    """Whether `value` is an int (not a bool) or a float, finite and in the range of a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def whole(low: int, high: int = 2**31 - 1) -> Check:
    """An integer in [low, high]; `high` defaults to the largest int32, which JAX counts with."""
    return Check(
        f"an integer from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def number(low: float, high: float = math.inf) -> Check:
    """A finite number in [low, high]."""
    bound = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    return Check(f"a number {bound}", lambda v: is_number(v) and low <= v <= high)


def one_of(*values: Any) -> Check:
    """A value that equals one of `values`."""
    return Check("one of " + ", ".join(map(repr, values)), lambda v: v in values)


def all_of(name: str, check: Check) -> Check:
    """A list or tuple, called `name` in messages, whose items all pass `check`."""
    return Check(
        f"{name}, each {check.expected}",
        lambda v: isinstance(v, tuple | list) and all(map(check.test, v)),
    )


def or_null(check: Check) -> Check:
    """None, or a value that passes `check`."""
    return Check(f"{check.expected}, or null", lambda v: v is None or check.test(v))


POSITIVE = Check("a number above 0", lambda v: is_number(v) and v > 0)
FRACTION = Check("a number of at least 0 and below 1", lambda v: is_number(v) and 0 <= v < 1)
BETWEEN = Check("a number above 0 and below 1", lambda v: is_number(v) and 0 < v < 1)
FLAG = Check("True or False", lambda v: isinstance(v, bool))
TEXT = Check("a string", lambda v: isinstance(v, str))
# For layers, evaluation batches and seeds: a larger number is a slip, and would exhaust the memory.
SIZE = whole(1, 2**16)


# ---------------------------------------------------------------------------- trees
def faults(form: Form, value: Any, place: str = "") -> Iterator[str]:
    """Yields one line for each mismatch between `value` and `form`.

    Args:
      place: where `value` is, such as "config.model"; each line starts with the place of its
        mismatch.
    """
    name = place or "the top level"
    if isinstance(form, Optional):
        yield from faults(form.form, value, place)
    elif isinstance(form, Check):
        if not form.test(value):
            yield f"{name} must be {form.expected}: it is {shown(value)}"
    elif isinstance(form, list):
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from faults(form[0], item, f"{place}[{i}]")
        else:
            yield f"{name} must be a list: it is {shown(value)}"
    elif not isinstance(value, dict):
        yield f"{name} must be an object with keys: it is {shown(value)}"
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
    """`value` on one line of at most 60 characters; dtype and shape if it is an array."""
    if hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(data: bytes) -> Any:
    """Parses a JSON text in UTF-8.

    Raises:
      Damaged: the text is not JSON, repeats a key, or contains what could not be written again:
        NaN, an infinity, a lone surrogate, or very deep nesting.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        too_deep = _levels(value) > _MAX_LEVELS
    except ValueError as error:  # from JSON or UTF-8
        raise Damaged(" ".join(str(error).split())) from error
    except RecursionError:
        value, too_deep = None, True
    if too_deep:
        raise Damaged(f"it has more than {_MAX_LEVELS} levels of lists and objects")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise Damaged(f"the key {shown(twice)} is repeated")
    return value


def _levels(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_levels, value.values() if isinstance(value, dict) else value), default=0)


# ---------------------------------------------------------------------------- files
@dataclasses.dataclass(frozen=True)
class Schema:
    """What a file must contain."""

    form: Form
    remedy: str  # what to do if the file does not match
    together: Callable[[Any], Iterator[str]] = lambda _: iter(())  # mismatches between values

    def check(self, value: Any) -> None:
        """Raises Damaged, with the first mismatch, if `value` does not match this schema."""
        found = list(faults(self.form, value)) or list(self.together(value))
        if found:
            raise Damaged(first_of(found))

    def parse(self, data: bytes) -> Any:
        """Parses a JSON text; raises Damaged if its value does not match this schema."""
        value = parse(data)
        self.check(value)
        return value
