"""The study that the workers of a search share, in a database."""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import optuna
import sqlalchemy.exc
from etils import epath
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection

from cifar_jax import places
from cifar_jax.config.schema import Search
from cifar_jax.errors import MOST_KEYS, UserError, first_of
from cifar_jax.runtime import workdir as files
from cifar_jax.search.evolution import RegularizedEvolution
from cifar_jax.terminal import printable, say

DATABASE = "search.db"
SPACE = "space"  # the attribute of a study that describes its space
_MISSED = 4  # signs of life; then a worker counts as dead
_BETWEEN = 2.0  # seconds between two tries to reach the storage
_RACES = 10  # tries to make what is in a new one
# What a database driver raises if the server is away or busy; a wrong table is a fault of ours.
AWAY = (StorageInternalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
_MAXIMIZE, _MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
_Result = TypeVar("_Result")


def patiently(search: Search, what: Callable[[], _Result]) -> _Result:
    """Returns `what()`, which is tried again for a while if the storage cannot be reached.

    Raises:
      UserError: it could not be reached for `search.patience` seconds.
    """
    end = None
    while True:
        try:
            return what()
        except AWAY as error:
            cause = error.__cause__ or error
            reason = places.without_password(str(getattr(cause, "orig", cause)).splitlines()[0])
            if end is None:
                end = time.monotonic() + search.patience
                say(
                    f"the storage of the search cannot be reached ({printable(reason)}): trying "
                    f"again for {search.patience:g} s",
                    sys.stderr,
                )
            if time.monotonic() + _BETWEEN > end:
                raise UserError(
                    f"the storage of the search cannot be reached ({reason}): check "
                    "config.search.storage and its server, and run again; nothing is lost"
                ) from error
            time.sleep(_BETWEEN)


class _Storage(RDBStorage):
    """Optuna's storage, whose operations wait until the database can be reached again.

    A worker then loses nothing, wherever in Optuna it is. `patience` is set after the connection.
    """

    patience: Search | None = None

    def __init__(self, *arguments: Any, **options: Any):
        with contextlib.ExitStack() as unless_made:
            unless_made.callback(self.close)
            super().__init__(*arguments, **options)
            unless_made.pop_all()

    def close(self) -> None:
        """Closes the connections to the database."""
        if engine := getattr(self, "engine", None):  # None: its URL cannot be used
            engine.dispose()

    def record_heartbeat(self, trial_id: int) -> None:
        """Gives a sign of life. If it cannot be written, the next one makes up for it."""
        with contextlib.suppress(*AWAY):
            super().record_heartbeat(trial_id)


def _patient(name: str) -> Callable[..., Any]:
    operation = getattr(RDBStorage, name)

    @functools.wraps(operation)
    def call(self: _Storage, *arguments: Any, **options: Any) -> Any:
        if self.patience is None:
            return operation(self, *arguments, **options)
        return patiently(self.patience, lambda: operation(self, *arguments, **options))

    return call


for _name in sorted({*BaseStorage.__abstractmethods__, "_get_stale_trial_ids", "_get_trials"}):
    setattr(_Storage, _name, _patient(_name))


@contextlib.contextmanager
def open_study(
    search: Search, workdir: epath.Path, space: dict[str, Any]
) -> Iterator[optuna.Study]:
    """The study of a search, new or joined; closes its connections at the end.

    Args:
      space: what `Space.description` returns.

    Raises:
      UserError: the storage is unknown or cannot be reached, or its study searches another space.
    """
    name = search.name or workdir.name
    study, opened = patiently(search, lambda: _create(search, name, workdir))
    try:
        _check_space(study, name, {**space, "config.search.objectives": list(search.objectives)})
        yield study
    finally:
        opened.close()


def _check_space(study: optuna.Study, name: str, space: dict[str, Any]) -> None:
    """Notes the space of a new study. Raises UserError if the study searches another one."""
    wanted = json.loads(json.dumps(space))
    found = study.user_attrs.get(SPACE)
    if found is None:
        study.set_user_attr(SPACE, wanted)
    elif found != wanted:
        changed = [
            f"{key}: {found.get(key)} -> {wanted.get(key)}"
            for key in sorted({**found, **wanted})
            if found.get(key) != wanted.get(key)
        ]
        raise UserError(
            f"the study {name!r} in this storage searches another space: choose another "
            f"config.search.name or --workdir, or undo {first_of(changed, MOST_KEYS, '; ')}"
        )


def _storage(search: Search, workdir: epath.Path) -> _Storage:
    url, options = search.storage, {}
    if not url:
        if "://" in str(workdir):
            raise UserError(
                "config.search.storage is empty, and a workdir in an object store cannot hold an "
                "SQLite file: set it to the URL of a database"
            )
        files.make_directory(workdir)
        url = f"sqlite:///{workdir / DATABASE}"
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": search.patience}}  # for the lock of another worker
    try:
        return _Storage(
            url,
            engine_kwargs=options,
            heartbeat_interval=search.heartbeat,
            grace_period=_MISSED * search.heartbeat,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        shown, reason = map(places.without_password, (url, str(error).splitlines()[0]))
        raise UserError(
            f"config.search.storage={shown} cannot be used ({reason}): give the URL of a database, "
            "such as postgresql+psycopg2://USER@HOST/NAME, and install its driver"
        ) from error


def _create(search: Search, name: str, workdir: epath.Path) -> tuple[optuna.Study, _Storage]:
    for _ in range(_RACES):
        try:
            opened = _storage(search, workdir)
            with contextlib.ExitStack() as unless_made:
                unless_made.callback(opened.close)
                study = optuna.create_study(
                    storage=opened,
                    study_name=name,
                    load_if_exists=True,
                    directions=[_MAXIMIZE, *[_MINIMIZE] * (len(search.objectives) - 1)],
                    sampler=_SAMPLERS[search.sampler](),
                    pruner=_PRUNERS[search.pruner](),
                )
                unless_made.pop_all()
            opened.patience = search
            return study, opened
        except sqlalchemy.exc.DBAPIError as error:
            # Workers that start together make the same tables and rows, and all but one fail.
            made = isinstance(error, sqlalchemy.exc.IntegrityError)
            if not made and "already exists" not in str(error):
                raise
            time.sleep(_BETWEEN)
    raise UserError(
        f"the tables of the study {name!r} cannot be made: check config.search.storage, which may "
        "hold tables of another program"
    )


_SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "evolution": RegularizedEvolution,
}
_PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}
