"""Which files an argument of `--mode=predict` means: itself, a directory's or a pattern's."""

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
# What stands before the first ** of a pattern, and behind it.
_RECURSIVE = re.compile(r"(|.*?/)(?:\*\*/+)*\*\*(?:/+(.*))?", re.DOTALL)


def find(argument: str) -> list[str]:
    """The paths of the images that an argument means, each once; only these names are held.

    A file is itself, whatever its name, and "-" stands for standard input. A directory is its files
    of `images.SUFFIXES` at any depth, sorted; how many others it holds is logged in a line. What
    does not exist is a pattern of files and directories, with * and **. Links to directories are
    followed only where the argument names them: behind others lie loops, and images twice.

    Raises:
      UserError: there are none, or it is the address of something elsewhere.
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
            raise UserError(
                f"{argument} does not exist, nor matches anything as a pattern"
            ) from None
    except OSError:
        return [argument]  # reading it tells the reason
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
    return list(dict.fromkeys(paths))  # a pattern matches directories and what is inside


def _matches(pattern: str) -> list[str]:
    """As `glob.glob` has it, sorted, but that ** does not follow links."""
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


def _walk(root: str, closed: list[OSError]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in order, past hidden directories and links; `closed` gets what it cannot list."""
    for place, directories, names in os.walk(root, onerror=closed.append):
        names.sort()
        yield place, directories, names
        directories[:] = sorted(name for name in directories if not name.startswith("."))


def _inside(directory: str, skipped: collections.Counter[str]) -> list[str]:
    """The images at any depth; what is none is added to `skipped` by its reason."""
    paths: list[str] = []
    closed: list[OSError] = []
    for place, directories, names in _walk(directory, closed):
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
    # A directory that cannot be listed is tried as an image, and so named with the reason.
    return paths + [error.filename for error in closed]


def _reason_to_skip(name: str, path: str) -> str | None:
    if name.startswith("."):
        return "hidden"
    if not name.lower().endswith(images.SUFFIXES):
        return "other suffixes"
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # a broken link; what cannot be looked at is tried, and so named
        return "links" if os.path.islink(path) else None
    return None if regular else "pipes, sockets and devices"
