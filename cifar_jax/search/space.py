"""The space of a search: ranges over the keys of a config, and the config that a trial chooses.

The ranges are gone through in their order. One whose key does not exist in the trial, such as the
filters of a fourth block of three, or has no effect, such as the patience of a plateau that is
off, is left out.
"""

import copy
import dataclasses
import re
from typing import Any, cast

import optuna

from cifar_jax import models
from cifar_jax.config import convert, keys, validation
from cifar_jax.config.schema import Config, Range, Search
from cifar_jax.errors import UserError

_FIXED = ("seed", "seeds", "model.name", "profile")  # no part of what is searched
_MULTIPLE = 8  # of what grows from block to block, which suits vector units
_TOKEN = re.compile(r"[^.\[\]]+|\[\d+\]")


class Space:
    """What a search may choose, on the basis of one config."""

    def __init__(self, config: Config):
        """Checks the ranges of `config.search.space`.

        Raises:
          UserError: there are none; one has a key that does not exist or a value that the key does
            not take; or its bounds are wrong.
        """
        self.ranges = config.search.space
        self._base = keys.plain(dataclasses.replace(config, search=Search()))
        if not self.ranges:
            raise UserError(
                "config.search.space is empty: a config to search says what to choose, with "
                "config.search.space = (base.choose(...), ...)"
            )
        self._check()

    def sample(self, trial: optuna.trial.BaseTrial) -> Config:
        """The config of a trial.

        Raises:
          UserError: the chosen values contradict each other.
        """
        values = copy.deepcopy(self._base)
        for one in self.ranges:
            found = _present(values, one.name)
            if found is None:
                continue
            if one.choices is not None:
                # The storage keeps text and numbers, so other values are kept as text.
                known = {_stored(choice): choice for choice in one.choices}
                chosen = known[trial.suggest_categorical(one.name, list(known))]
            elif _is_int(found):
                low, high, step = _bounds(one, int)
                chosen = trial.suggest_int(one.name, low, high, step=step, log=bool(one.log))
            else:
                low, high, step = _bounds(one, float)
                chosen = trial.suggest_float(one.name, low, high, step=step, log=bool(one.log))
            growth = 1.0
            if one.growth and _get(values, one.name.partition("[*]")[0]) > 1:
                growth = trial.suggest_float(f"{one.name} growth", 1, one.growth)
            _set(values, one.name, chosen, growth)
        return validation.check(convert.parse(values, models))

    def description(self) -> dict[str, Any]:
        """The space as plain values for JSON, flat, to compare it with another one."""
        flat = keys.flat(convert.parse(self._base, models))
        flat = {f"config.{name}": value for name, value in flat.items()}
        flat |= {f"the range over {one.name}": keys.plain(one) for one in self.ranges}
        return flat

    def _check(self) -> None:
        values = copy.deepcopy(self._base)
        seen = set()
        for i, one in enumerate(self.ranges):
            place = f"config.search.space[{i}]"
            if one.name in seen or one.name in _FIXED:
                reason = "has a range already" if one.name in seen else "is the same for all trials"
                raise UserError(f"{place}: {one.name} {reason}: leave it out")
            seen.add(one.name)
            _check_bounds(place, one)
            if _get(values, one.name) is None:
                names = [re.sub(r"\[\d+\]", "[*]", name) for name in _leaves(values)]
                names += [name.partition("[*]")[0] for name in names]
                hint = convert.nearest(one.name, list(dict.fromkeys(names)))
                raise UserError(f"{place}: config.{one.name} is not a key: {hint}")
            # Ends with as many blocks as there can be, so that ranges over the last ones find them.
            for value in one.choices or (one.low, one.high):
                try:
                    _set(values, one.name, _as_found(values, one.name, value))
                    convert.parse(values, models)
                except UserError as error:
                    raise UserError(f"{place}: {str(error).splitlines()[0]}") from error


def _check_bounds(place: str, one: Range) -> None:
    bounds = (one.low, one.high)
    if (one.choices is None) == (bounds == (None, None)) or bounds.count(None) == 1:
        raise UserError(f"{place}: {one.name} needs either low and high, or choices")
    if one.low is not None and one.high is not None and one.low > one.high:
        raise UserError(
            f"{place}: {one.name} has low={one.low:g} above high={one.high:g}: swap them"
        )
    if one.log and (one.low or 0) <= 0:
        raise UserError(f"{place}: {one.name} needs low above 0 for log=True")
    if one.log and one.step:
        raise UserError(f"{place}: {one.name} cannot have both log and step: leave one out")
    if one.growth and "[*]" not in one.name:
        raise UserError(f"{place}: growth needs a key with [*], which stands for every block")
    if one.choices is not None and (one.step or one.log or one.growth):
        raise UserError(f"{place}: {one.name} has choices, so step, log and growth do not apply")


def _bounds(one: Range, kind: type) -> tuple[Any, Any, Any]:
    assert one.low is not None and one.high is not None
    step = kind(one.step) if one.step else (1 if kind is int else None)
    return kind(one.low), kind(one.high), step


def _stored(choice: Any) -> Any:
    return (
        choice if choice is None or isinstance(choice, bool | int | float | str) else repr(choice)
    )


# ---------------------------------------------------------------------------- values by key
def _leaves(values: Any) -> dict[str, keys.Leaf]:
    return {leaf.name: leaf for leaf in keys.leaves(convert.parse(values, models))}


def _path(key: str) -> list[str | int]:
    tokens = _TOKEN.findall(key.replace("[*]", "[0]"))
    return [int(token[1:-1]) if token[0] == "[" else token for token in tokens]


def _get(values: Any, key: str) -> Any:
    """The value of a key; with [*], that of the first block; None if there is none.

    Of a tuple of sections, such as "model.blocks", it is their number.
    """
    place: Any = values
    for part in _path(key):
        inside = range(len(place)) if isinstance(place, list) else place
        if not isinstance(place, list | dict) or part not in inside:
            return None
        place = cast(Any, place)[part]
    if isinstance(place, dict):
        return None
    return len(place) if _are_sections(place) else place


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _present(values: Any, key: str) -> Any:
    """The value that a key has so far; None if it does not exist, or has no effect."""
    name, leaves = key.replace("[*]", "[0]"), _leaves(values)
    leaf = leaves.get(name) or leaves.get(name.rpartition("[")[0])
    if leaf and leaf.key.needs and not leaf.key.needs.met(leaf.section):
        return None
    return _get(values, key)


def _as_found(values: Any, key: str, value: Any) -> Any:
    """A bound, which is a float, as an integer where the key has integers."""
    found = _get(values, key)
    is_whole = isinstance(value, float) and value == int(value)
    return int(value) if _is_int(found) and is_whole else value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _set(values: Any, key: str, chosen: Any, growth: float = 1.0) -> None:
    """Gives a key its value; or several blocks theirs; or a tuple of sections its number.

    Raises:
      UserError: that number is no number of sections.
    """
    home, star, rest = key.partition("[*]")
    if star:
        for i in range(_get(values, home) or 0):
            value = chosen
            if i and growth > 1:
                value = chosen * growth**i
                value = round(value / _MULTIPLE) * _MULTIPLE if _is_int(chosen) else value
            _set(values, f"{home}[{i}]{rest}", value)
        return
    *parents, name = _path(key)
    place = values
    for part in parents:
        place = place[part]
    if _are_sections(place[name]):
        if not _is_int(chosen) or chosen < 1:
            raise UserError(f"config.{key} is a number of blocks: it cannot be {chosen!r}")
        blocks = place[name]
        chosen = [copy.deepcopy(blocks[min(i, len(blocks) - 1)]) for i in range(chosen)]
    place[name] = chosen
