"""Logs a run to Weights & Biases as well, if `config.wandb` says so."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

from etils import epath

from cifar_jax import places
from cifar_jax.errors import UserError, missing
from cifar_jax.runtime import distributed, metrics_writer, tensorboard
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.workdir_schema import RESULT
from cifar_jax.terminal import printable

_ID = "id.txt"  # of the run there, so that a resumed run goes on in it


class Tracker:
    """Is called with each row of `metrics.jsonl` once it is written; a context manager.

    The run there begins with the first row, so a run that is refused leaves none. It is given all
    rows of the file: it ignores those that it has already.
    """

    def __init__(self, mode: str, workdir: epath.Path, config: dict[str, Any]):
        """Prepares to log.

        Args:
          mode: "online" or "offline".
          config: the resolved config, as it is shown there.

        Raises:
          UserError: the package is missing, or nobody is logged in.
        """
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise missing(error, "config.wandb", "requirements-wandb.txt") from error
        self._wandb, self._mode, self._workdir, self._config = wandb, mode, workdir, config
        self._run: Any = None
        if mode == "online":
            with self._refusing():
                wandb.login()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if self._run is None:
            return
        if kind is None:
            result = read_json(self._workdir / files.RESULT, RESULT)
            self._run.summary.update(
                {k: v for k, v in result.items() if isinstance(v, int | float)}
            )
        self._run.finish(exit_code=0 if kind is None else 1)

    def __call__(self, row: dict[str, Any]) -> None:
        """Logs the row of an epoch, and all rows before it if it is the first."""
        rows = [row]
        if self._run is None:
            self._run, rows = self._begin(), metrics_writer.read_rows(self._workdir)
        for row in rows:
            figures = {f"{split}/{name}": value for split, name, value in tensorboard.figures(row)}
            self._run.log({"epoch": row["epoch"], **figures}, step=row["step"])

    def _begin(self) -> Any:
        path = self._workdir / files.WANDB / _ID
        if not path.exists():
            with files.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, secrets.token_hex(4).encode())
        is_remote = str(self._workdir).startswith(places.STORES)
        with self._refusing():
            return self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "cifar-jax"),
                id=path.read_text(),
                name=self._workdir.name,
                dir=None if is_remote else str(self._workdir),
                mode=self._mode,
                resume="allow",
                config=self._config,
                settings=self._wandb.Settings(silent=True, console="off"),
            )

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except self._wandb.Error as error:
            raise UserError(
                f"Weights & Biases: {printable(error)}; run `wandb login`, or set "
                "config.wandb=offline"
            ) from error


def tracker(
    mode: str, workdir: epath.Path, config: dict[str, Any]
) -> contextlib.AbstractContextManager[Tracker | None]:
    """A `Tracker`; None if `mode` is "", or in a process that does not write.

    Raises:
      UserError: see `Tracker`.
    """
    if mode and distributed.is_writer():
        return Tracker(mode, workdir, config)
    return contextlib.nullcontext()
