"""The modes of `main.py`: from flags to what they ask for, and to an exit status.

What a mode needs is imported when it runs, so that a wrong flag is answered at once.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from absl import flags
from etils import epath
from ml_collections import config_flags

from cifar_jax import places
from cifar_jax.config import files as config_file
from cifar_jax.errors import BAD_INPUT, SOME_FAILED, TRY_AGAIN, UserError, missing
from cifar_jax.terminal import printable, say

if TYPE_CHECKING:
    from cifar_jax.training.experiment import Experiment

_BEGAN = time.monotonic()
# The command line with its flag files read, which main.py fills in before it parses: absl looks at
# it here already, and where it is wrong nobody could say so.
ARGUMENTS: list[str] = []
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "the experiment: FILE, or FILE:ARGUMENT", sys_argv=ARGUMENTS
)
flags.FLAGS["config"].parser = config_file.Parser(ARGUMENTS)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run lives; default: runs/<config name>")
_WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "several runs: of report, to compare, in a page beside the first or in --workdir; of demo, two",
)
_FORMAT = flags.DEFINE_string(
    "format",
    None,
    "of predict: table, json (lines) or csv; of export: stablehlo, onnx, onnx-int8 or safetensors",
)
_TOP_K = flags.DEFINE_integer("top_k", 3, "of predict: how many classes", lower_bound=1)
_FIT = flags.DEFINE_enum(
    "fit",
    "crop",
    ["crop", "whole"],
    "of predict: the middle of an image of other proportions, or all of it, squashed",
)
_PORT = flags.DEFINE_integer(
    "port", 7860, "of demo: of 127.0.0.1; 0: any that is free", lower_bound=0, upper_bound=65535
)
_OUTPUT = flags.DEFINE_string("output", None, "of export: path; default: WORKDIR/export/...")
_FORCE = flags.DEFINE_bool("force", False, "of export: replace what is there")
SUITES = ["corruptions", "cifar10_corrupted", "cifar10_1", "adversarial"]
_SUITE = flags.DEFINE_enum("suite", None, SUITES, "of evaluate: harder images to test on")
_SUITE_IMAGES = flags.DEFINE_integer(
    "suite_images", None, "with --suite: only the first so many; default: all, adversarial 1000", 1
)
TUNE_MEMORY = flags.DEFINE_bool(
    "tune_memory", True, "of train and evaluate: on Linux CPUs, start again with huge pages"
)
JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout",
    120,
    "of train and evaluate: seconds that the processes of a run wait for each other at the start",
)


_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    "",
    "where this machine has the run's data, if not where it was trained: a TFDS directory or "
    "CIFAR-10's archive; of train: --config.data.dir or --config.data.archive",
)


class Mode(NamedTuple):
    """What a mode does, and what its command line may hold besides --mode and --workdir."""

    run: Callable[[list[str]], int]  # takes the arguments that are no flags; the exit status
    flags: tuple[str, ...]  # its own, by name
    formats: tuple[str, ...] = ()  # values of --format, the default first
    takes_arguments: bool = False
    prints: bool = False  # all that it does: it stops where standard output takes no more
    shared: bool = False  # by the processes of a run; the other modes are the work of one
    # By malloc's settings: steps of one shape, again and again. Where pictures of any size come
    # and go the heap, which then keeps all, would grow.
    tuned: bool = False


def refuse_foreign(name: str, flag: str, shown: str) -> None:
    """Refuses a flag that the mode of that name has not declared.

    Raises:
      UserError: it names the modes that the flag, as `shown`, belongs to.
    """
    owners = [f"--mode={other}" for other, mode in MODES.items() if flag in mode.flags]
    if f"--mode={name}" not in owners:
        raise UserError(f"{shown} belongs to {' and '.join(owners)}, not to --mode={name}")


def check(name: str, arguments: list[str]) -> None:
    """Refuses flags and arguments that belong to other modes, and values that cannot be meant.

    Args:
      name: of the mode.
      arguments: those that are no flags.

    Raises:
      UserError: there are some.
    """
    mode = MODES[name]
    for flag in dict.fromkeys(flag for other in MODES.values() for flag in other.flags):
        if flags.FLAGS[flag].present:
            refuse_foreign(name, flag, flags.FLAGS[flag].serialize())
    if arguments and not mode.takes_arguments:
        raise UserError(f"{arguments[0]} is not understood: options begin with --")
    if _FORMAT.value is not None and _FORMAT.value not in mode.formats:
        owners = [f"--mode={other}" for other, m in MODES.items() if _FORMAT.value in m.formats]
        hint = f", but one of {' and '.join(owners)}" if owners else ""
        raise UserError(
            f"--format={_FORMAT.value} is no format of --mode={name}{hint}: "
            f"use {', '.join(mode.formats[:-1])} or {mode.formats[-1]}"
        )
    for flag, what in ((_WORKDIR, "directory"), (_OUTPUT, "path")):
        if flag.value == "":
            raise UserError(f"--{flag.name} is empty: name a {what}, or leave it out")
    if _WORKDIRS.present and not all(_WORKDIRS.value or [""]):
        raise UserError("--workdirs names an empty path: give paths with a comma between them")
    if _SUITE_IMAGES.present and _SUITE.value is None:
        raise UserError(f"--suite_images={_SUITE_IMAGES.value} needs --suite")
    if not 0 < JOIN_TIMEOUT.value <= 86_400:
        raise UserError(f"--join_timeout={JOIN_TIMEOUT.value:g} must be above 0, and at most a day")
    if name != "train" and not (_WORKDIR.value or _WORKDIRS.value):
        raise UserError(f"--mode={name} needs --workdir")


def _train(_: list[str]) -> int:
    from cifar_jax.runtime.interrupt import Interrupted
    from cifar_jax.training import run as train
    from cifar_jax.training import seeds

    config = CONFIG.value
    if config is None:
        raise UserError("no config: pass --config=configs/final.py")
    name = config_file.run_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    workdir = _directory(_WORKDIR.value or f"runs/{name}")
    try:
        if config.get("seeds", 1) == 1:
            train.run(config, workdir, _BEGAN, _write_report)
        else:
            summary = seeds.run(config, workdir, _BEGAN, _write_report)
            _compare([workdir / f"seed-{seed}" for seed in summary["seeds"]], workdir)
    except Interrupted as interruption:
        say(printable(interruption), sys.stderr)
        return TRY_AGAIN
    return 0


def _write_report(workdir: epath.Path, exp: "Experiment") -> epath.Path:
    from cifar_jax.report import page  # draws with a library that nothing else needs

    return page.write(workdir, exp)


def _compare(workdirs: list[epath.Path], home: epath.Path) -> None:
    from cifar_jax.report import page

    say(f"everything is in {printable(page.compare(workdirs, home))}")


def _evaluate(_: list[str]) -> int:
    from cifar_jax.runtime import distributed

    workdir, data = _directory(_WORKDIR.value), _data_dir()
    if _SUITE.value:
        from cifar_jax.evaluation import suites as robustness

        text = robustness.describe(robustness.run(workdir, _SUITE.value, _SUITE_IMAGES.value, data))
    else:
        from cifar_jax.training import test as evaluate

        text = evaluate.describe(evaluate.run(workdir, data))
    if distributed.is_writer():
        say(text)
    return 0


def _predict(arguments: list[str]) -> int:
    from cifar_jax import predict

    output_format = _FORMAT.value or MODES["predict"].formats[0]
    tried, failures = predict.run(
        _directory(_WORKDIR.value), arguments, output_format, _TOP_K.value, _FIT.value
    )
    if failures:
        return SOME_FAILED if tried else BAD_INPUT
    return 0


def _export(_: list[str]) -> int:
    from cifar_jax import export

    output_format = _FORMAT.value or MODES["export"].formats[0]
    workdir = _directory(_WORKDIR.value)
    line = export.run(workdir, output_format, _OUTPUT.value, _data_dir(), _FORCE.value)
    say(printable(line))
    return 0


def _report(_: list[str]) -> int:
    from cifar_jax.report import page

    runs = [_directory(path) for path in _WORKDIRS.value]
    if runs:
        path = page.compare(runs, _directory(_WORKDIR.value or runs[0].parent))
    else:
        path = page.run(_directory(_WORKDIR.value), _data_dir())
    say(printable(path))
    return 0


def _demo(_: list[str]) -> int:
    if len(_WORKDIRS.value) > 2:
        raise UserError("--workdirs names too many runs: --mode=demo shows one or two")
    if _WORKDIRS.value and _WORKDIR.value:
        raise UserError("--mode=demo takes --workdir or --workdirs, not both")
    try:
        from cifar_jax.demo import server
    except ModuleNotFoundError as error:
        raise missing(error, "--mode=demo", "requirements-demo.txt") from error
    runs = [_directory(path) for path in _WORKDIRS.value or [_WORKDIR.value]]
    server.run(runs, _PORT.value, _data_dir())
    return 0


_SHARED = ("tune_memory", "join_timeout")
MODES = {
    "train": Mode(_train, ("config", *_SHARED), shared=True, tuned=True),
    "evaluate": Mode(
        _evaluate, ("suite", "suite_images", "data_dir", *_SHARED), shared=True, tuned=True
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
}


MODE = flags.DEFINE_enum("mode", "train", list(MODES), "what to do with the workdir")


def _data_dir() -> str:
    """The value of --data_dir.

    Raises:
      UserError: there is nothing.
    """
    if _DATA_DIR.value and not places.local(_DATA_DIR.value, "--data_dir").exists():
        raise UserError(f"--data_dir={_DATA_DIR.value} does not exist: name another")
    return _DATA_DIR.value


def _directory(path: epath.PathLike) -> epath.Path:
    """A directory that the command line names, there or not."""
    return places.anywhere(path, "--workdir")
