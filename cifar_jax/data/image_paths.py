"""Finds the image files that an argument of `--mode=predict` stands for."""

import collections
import glob
import logging
import os
import re
import stat
from collections.abc import Iterator

from cifar_jax import places
from cifar_jax.data import images
from cifar_jax.errors import UserError

_log = logging.getLogger(__name__)
# The part of a pattern before its first **, and the part after it.
_RECURSIVE = re.compile(r"(|.*?/)(?:\*\*/+)*\*\*(?:/+(.*))?", re.DOTALL)


def find(argument: str) -> list[str]:
    """The paths of the images that an argument stands for, each once. Opens none of them.

    A file stands for itself, whatever its name, and "-" for standard input. A directory stands for
    its files with one of `images.SUFFIXES`, at any depth and sorted; one log line counts the others
    that it holds. An argument that does not exist is taken as a pattern with * and **. Links to
    directories are followed only if the argument names them, since others can form loops or lead to
    the same image twice.

    Raises:
      UserError: no image is found, or the argument is a remote address.
    """
    if argument == "-":
        return [argument]
    places.local(argument)
    roots = [argument]
    try:
        os.stat(argument)
    except (FileNotFoundError, NotADirectoryError):
        roots = _matches(argument)
        if not roots:
            raise UserError(f"{argument} does not exist and no file matches it") from None
    except OSError:
        return [argument]  # reading it will report the reason
    paths: list[str] = []
    skipped: collections.Counter[str] = collections.Counter()
    for root in roots:
        if not os.path.isdir(root):
            paths.append(root)
        elif root != argument and os.path.islink(root):
            skipped["links"] += 1
        else:
            paths += _inside(root, skipped)
    if skipped:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in skipped.items())
        _log.info("%s: %s skipped (%s)", argument, f"{skipped.total():,}", reasons)
    if not paths:
        raise UserError(f"{argument} holds no image ({', '.join(images.SUFFIXES)})")
    return list(dict.fromkeys(paths))  # a pattern can match a directory and also its files


def _matches(pattern: str) -> list[str]:
    """Like `sorted(glob.glob(pattern))`, except that ** does not follow links."""
    recursive = _RECURSIVE.fullmatch(pattern)
    if not recursive:
        return sorted(glob.glob(pattern))
    head, tail = recursive.groups()
    roots = sorted(glob.glob(head)) if head else [os.curdir]
    if not tail:
        return roots
    found: dict[str, None] = {}
    for root in roots:
        for directory, _, _ in _walk(root, []):
            inside = os.path.join(glob.escape(directory), tail)
            found |= dict.fromkeys(_matches(inside.removeprefix("" if head else "./")))
    return list(found)


def _walk(root: str, errors: list[OSError]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in sorted order, without hidden directories and links.

    An error is added to `errors` for each directory that cannot be listed.
    """
    for place, directories, names in os.walk(root, onerror=errors.append):
        names.sort()
        yield place, directories, names
        directories[:] = sorted(name for name in directories if not name.startswith("."))


def _inside(directory: str, skipped: collections.Counter[str]) -> list[str]:
    """The images at any depth; counts all other entries in `skipped`, by reason."""
    paths: list[str] = []
    errors: list[OSError] = []
    for place, directories, names in _walk(directory, errors):
        for name in directories:
            if name.startswith("."):
                skipped["hidden"] += 1
            elif os.path.islink(os.path.join(place, name)):
                skipped["links"] += 1
        for name in names:
            path = os.path.join(place, name)
            reason = _reason_to_skip(name, path)
            if reason:
                skipped[reason] += 1
            else:
                paths.append(path)
    # A directory that cannot be listed is returned too: reading it will report the reason.
    return paths + [error.filename for error in errors]


def _reason_to_skip(name: str, path: str) -> str | None:
    if name.startswith("."):
        return "hidden"
    if not name.lower().endswith(images.SUFFIXES):
        return "other suffixes"
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # a broken link; for any other file, reading it will report the reason
        return "links" if os.path.islink(path) else None
    return None if regular else "pipes, sockets and devices"
