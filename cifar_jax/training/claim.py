"""A workdir as the home of one run: the config that it keeps, and who may train there."""

import contextlib
from collections.abc import Iterator

from etils import epath

from cifar_jax import forms, models
from cifar_jax.config import keys, migration
from cifar_jax.config.schema import Config
from cifar_jax.errors import UserError
from cifar_jax.runtime import checked
from cifar_jax.runtime import workdir as files


def load_config(workdir: epath.Path) -> Config:
    """The config of the run in `workdir`, which may be of an older version of this code.

    Raises:
      UserError: there is none, or there are several.
    """
    config = _saved_config(workdir)
    if config.seeds > 1:
        raise UserError(
            f"{workdir} holds runs of {config.seeds} seeds, each in a directory of its own: use "
            f"{workdir / f'seed-{config.seed}'}"
        )
    return config


def _saved_config(workdir: epath.Path) -> Config:
    path = workdir / files.CONFIG
    if not path.exists():
        raise UserError(f"no run in {workdir} ({files.CONFIG} is missing): train one there first")
    with checked.reading(path, "restore it, or copy that of a new run of the same config"):
        return migration.from_json(forms.parse(path.read_bytes()), models)


def check_config(workdir: epath.Path, config: Config) -> None:
    """Checks that `workdir` is empty or holds a run of `config`.

    Raises:
      UserError: it is a file, or holds a run of another config.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file: choose another")
    if (workdir / files.CONFIG).exists():
        changed = keys.differences(_saved_config(workdir), config)
        if changed:
            raise UserError(
                f"{workdir} holds a run of another config: choose another --workdir, or take back "
                + "; ".join(changed)
            )


@contextlib.contextmanager
def claimed(workdir: epath.Path, config: Config) -> Iterator[None]:
    """Makes `workdir` the home of a run of `config`, and keeps other processes from training there.

    Raises:
      UserError: it cannot be written, another process trains there, it holds a run of another
        config by now, or it is renamed or deleted in between.
    """
    with files.locked(workdir):
        check_config(workdir, config)
        files.make_directory(workdir)
        files.write_json(workdir / files.CONFIG, migration.to_json(config))
        try:
            yield
        except UserError:
            check_there(workdir)  # or a write that failed would ask for room on the disk
            raise


def check_there(workdir: epath.Path) -> None:
    """Raises UserError where a run's workdir has been renamed or deleted under it."""
    if not (workdir / files.CONFIG).exists():
        raise UserError(
            f"{workdir} is gone, renamed or deleted while it was trained in: the run goes on from "
            "its last checkpoint with --workdir=PLACE, where it is now"
        )
