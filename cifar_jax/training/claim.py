"""A workdir belongs to one run: its saved config, and the lock for the process that trains."""

import contextlib
from collections.abc import Iterator

from etils import epath

from cifar_jax import forms, models
from cifar_jax.config import keys, migration
from cifar_jax.config.schema import Config
from cifar_jax.errors import MOST_KEYS, UserError, first_of
from cifar_jax.runtime import checked
from cifar_jax.runtime import workdir as files


def load_config(workdir: epath.Path) -> Config:
    """Reads the config of the run in `workdir`, which an older version may have written.

    Raises:
      UserError: there is no run or its config is damaged, or `workdir` holds several runs.
    """
    config = _saved_config(workdir)
    if config.seeds > 1:
        raise UserError(
            f"{workdir} holds runs of {config.seeds} seeds, each in its own directory: use "
            f"{workdir / f'seed-{config.seed}'}"
        )
    return config


def _saved_config(workdir: epath.Path) -> Config:
    path = workdir / files.CONFIG
    if not path.exists():
        raise UserError(f"no run in {workdir} ({files.CONFIG} is missing): train one there first")
    with checked.reading(path, "restore it, or copy it from a new run of the same config"):
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
                f"{workdir} holds a run of another config: choose another --workdir, or undo "
                + first_of(changed, MOST_KEYS, "; ")
            )


@contextlib.contextmanager
def claimed(workdir: epath.Path, config: Config) -> Iterator[None]:
    """Locks `workdir` for a run of `config`, so that no other process trains there.

    Raises:
      UserError: it cannot be written, another process is training there, it now holds a run of
        another config, or it was renamed or deleted in the meantime.
    """
    with files.locked(workdir):
        check_config(workdir, config)
        files.make_directory(workdir)
        files.write_json(workdir / files.CONFIG, migration.to_json(config))
        try:
            yield
        except UserError:
            check_there(workdir)  # a write failed: first rule out that the workdir is gone
            raise


def check_there(workdir: epath.Path) -> None:
    """Raises UserError if the workdir of a run has been renamed or deleted during training."""
    if not (workdir / files.CONFIG).exists():
        raise UserError(
            f"{workdir} was renamed or deleted during training: to resume from its last "
            "checkpoint, name its new place with --workdir=PLACE"
        )
