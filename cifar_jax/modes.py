"""The modes of `main.py`: each takes its flags, does its work and returns an exit status.

A mode imports what it needs when it runs, so that wrong flags are reported at once.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from absl import flags
from etils import epath
from ml_collections import config_flags

from cifar_jax import options, places
from cifar_jax.config import files as config_file
from cifar_jax.config import keys, schema
from cifar_jax.errors import BAD_INPUT, SOME_FAILED, TRY_AGAIN, UserError, missing
from cifar_jax.terminal import printable, say

if TYPE_CHECKING:
    from cifar_jax.training.experiment import Experiment

_BEGAN = time.monotonic()


class Mode(NamedTuple):
    """A mode: its function, and what its command line may have besides --mode and --workdir."""

    run: Callable[[list[str]], int]  # takes the non-flag arguments, returns the exit status
    flags: tuple[str, ...]  # names of the flags it uses
    formats: tuple[str, ...] = ()  # values of --format, the default first
    takes_arguments: bool = False
    prints: bool = False  # printing is its only purpose: it stops when standard output is closed
    shared: bool = False  # all processes of a run take part; otherwise it is one process
    # Uses the malloc settings for repeated steps of one shape. They keep freed memory, so with
    # pictures of many sizes the heap would grow.
    tuned: bool = False


def refuse_foreign(name: str, flag: str, shown: str) -> None:
    """Refuses a flag that the mode `name` does not use.

    Args:
      shown: the flag as the user wrote it.

    Raises:
      UserError: names the modes that use the flag.
    """
    owners = [f"--mode={other}" for other, mode in MODES.items() if flag in mode.flags]
    if f"--mode={name}" not in owners:
        raise UserError(f"{shown} belongs to {' and '.join(owners)}, not to --mode={name}")


def check(name: str, arguments: list[str]) -> None:
    """Refuses flags and arguments of other modes, and impossible values.

    Args:
      name: the mode.
      arguments: the arguments that are not flags.

    Raises:
      UserError: names the first wrong flag or argument.
    """
    mode = MODES[name]
    for flag in dict.fromkeys(flag for other in MODES.values() for flag in other.flags):
        if flags.FLAGS[flag].present:
            refuse_foreign(name, flag, flags.FLAGS[flag].serialize())
    if arguments and not mode.takes_arguments:
        raise UserError(f"unexpected argument {arguments[0]}: options begin with --")
    given = options.FORMAT.value
    if given is not None and given not in mode.formats:
        owners = [f"--mode={other}" for other, m in MODES.items() if given in m.formats]
        hint = f" but of {' and '.join(owners)}" if owners else ""
        raise UserError(
            f"--format={given} is not a format of --mode={name}{hint}: "
            f"use {', '.join(mode.formats[:-1])} or {mode.formats[-1]}"
        )
    options.check()
    if "config" not in MODES[name].flags and not (options.WORKDIR.value or options.WORKDIRS.value):
        raise UserError(f"--mode={name} needs --workdir")


def _config(example: str) -> tuple[schema.Config, epath.Path]:
    """The config of the command line, and the workdir, which has its name by default."""
    from cifar_jax import models

    if options.CONFIG.value is None:
        raise UserError(f"no config: pass --config=configs/{example}.py")
    config = config_file.typed(options.CONFIG.value, models, options.ARGUMENTS)
    name = config_file.run_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    return config, _directory(options.WORKDIR.value or f"runs/{name}")


def _until_stopped(work: Callable[[], object]) -> int:
    """0 once `work` is done; another status if a signal stops it."""
    from cifar_jax.runtime.interrupt import Interrupted

    try:
        work()
    except Interrupted as interruption:
        say(printable(interruption), sys.stderr)
        return TRY_AGAIN
    return 0


def _train(_: list[str]) -> int:
    from cifar_jax.runtime import tracking
    from cifar_jax.training import run as train
    from cifar_jax.training import seeds

    config, workdir = _config("final")
    if config.search != schema.Search():
        raise UserError("config.search belongs to --mode=search: add it, or take another config")

    def work() -> None:
        with tracking.tracker(config.wandb, workdir, keys.plain(config)) as tracker:
            train.run(config, workdir, _BEGAN, _write_report, tracker)

    status = _until_stopped(work)
    if not status and config.seeds > 1:
        from cifar_jax.report import page  # late, because it imports matplotlib

        path = page.compare([home for _, home in seeds.runs(config, workdir)], workdir)
        say(f"the comparison is in {printable(path)}")
    return status


def _search(_: list[str]) -> int:
    try:
        from cifar_jax.search import study
    except ModuleNotFoundError as error:
        raise missing(error, "--mode=search", "requirements-search.txt") from error
    return _until_stopped(lambda: study.run(*_config("search")))


def _write_report(workdir: epath.Path, exp: "Experiment") -> epath.Path:
    from cifar_jax.report import page

    return page.write(workdir, exp)


def _evaluate(_: list[str]) -> int:
    from cifar_jax.runtime import distributed

    workdir, data = _directory(options.WORKDIR.value), _data_dir()
    if options.SUITE.value:
        from cifar_jax.evaluation import suites

        count = options.SUITE_IMAGES.value
        text = suites.describe(suites.run(workdir, options.SUITE.value, count, data))
    elif options.IMAGES.value:
        from cifar_jax.evaluation import own_images

        directory = places.existing(options.IMAGES.value, "--images")
        text = own_images.describe(own_images.run(workdir, directory))
    else:
        from cifar_jax.training import test

        text = test.describe(test.run(workdir, data))
    if distributed.is_writer():
        say(text)
    return 0


def _predict(arguments: list[str]) -> int:
    from cifar_jax import predict

    workdir = _directory(options.WORKDIR.value)
    output_format = options.FORMAT.value or MODES["predict"].formats[0]
    tried, failures = predict.run(
        workdir, arguments, output_format, options.TOP_K.value, options.FIT.value
    )
    if failures:
        return SOME_FAILED if tried else BAD_INPUT
    return 0


def _export(_: list[str]) -> int:
    from cifar_jax import export

    output_format = options.FORMAT.value or MODES["export"].formats[0]
    workdir = _directory(options.WORKDIR.value)
    line = export.run(
        workdir, output_format, options.OUTPUT.value, _data_dir(), options.FORCE.value
    )
    say(printable(line))
    return 0


def _report(_: list[str]) -> int:
    from cifar_jax.report import page

    runs = [_directory(path) for path in options.WORKDIRS.value]
    if runs:
        path = page.compare(runs, _directory(options.WORKDIR.value or runs[0].parent))
    else:
        path = page.run(_directory(options.WORKDIR.value), _data_dir())
    say(printable(path))
    return 0


def _demo(_: list[str]) -> int:
    if len(options.WORKDIRS.value) > 2:
        raise UserError("--workdirs has too many runs: --mode=demo shows one or two")
    if options.WORKDIRS.value and options.WORKDIR.value:
        raise UserError("--mode=demo takes --workdir or --workdirs, not both")
    try:
        from cifar_jax.demo import server
    except ModuleNotFoundError as error:
        raise missing(error, "--mode=demo", "requirements-demo.txt") from error
    runs = [_directory(path) for path in options.WORKDIRS.value or [options.WORKDIR.value]]
    server.run(runs, options.PORT.value, _data_dir())
    return 0


_SHARED = ("tune_memory", "join_timeout")
MODES = {
    "train": Mode(_train, ("config", *_SHARED), shared=True, tuned=True),
    "evaluate": Mode(
        _evaluate,
        ("suite", "suite_images", "images", "data_dir", *_SHARED),
        shared=True,
        tuned=True,
    ),
    "predict": Mode(
        _predict,
        ("format", "top_k", "fit"),
        formats=("table", "json", "csv"),
        takes_arguments=True,
        prints=True,
    ),
    "export": Mode(
        _export,
        ("format", "output", "data_dir", "force"),
        formats=("stablehlo", "onnx", "onnx-int8", "safetensors"),
    ),
    "report": Mode(_report, ("workdirs", "data_dir")),
    "demo": Mode(_demo, ("workdirs", "port", "data_dir")),
    "search": Mode(_search, ("config", "tune_memory"), tuned=True),
}


MODE = flags.DEFINE_enum("mode", "train", list(MODES), "what to do with the workdir")


def _data_dir() -> str:
    """The value of --data_dir.

    Raises:
      UserError: there is no such directory or file.
    """
    if options.DATA_DIR.value:
        places.existing(options.DATA_DIR.value, "--data_dir")
    return options.DATA_DIR.value


def _directory(path: epath.PathLike) -> epath.Path:
    """The directory at `path`, which need not exist."""
    return places.anywhere(path, "--workdir")
