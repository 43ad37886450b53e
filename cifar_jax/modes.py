"""The modes of `main.py`: from flags to what they ask for, and to an exit status.

What a mode needs is imported when it runs, so that a wrong flag is answered at once.
"""

import pathlib
import sys
import time
from collections.abc import Callable

from absl import flags
from etils import epath
from ml_collections import config_flags

from cifar_jax.errors import BAD_INPUT, SOME_FAILED, TRY_AGAIN, UserError

_BEGAN = time.monotonic()
CONFIG = config_flags.DEFINE_config_file("config", help_string="the experiment, a configs/*.py")
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
SUITES = ["corruptions", "cifar10_corrupted", "cifar10_1", "adversarial"]
_SUITE = flags.DEFINE_enum("suite", None, SUITES, "of evaluate: harder images to test on")
_SUITE_IMAGES = flags.DEFINE_integer(
    "suite_images", None, "only the first so many; default: all, for adversarial 1000", 1
)


def check(mode: str, arguments: list[str]) -> None:
    """Refuses flags and arguments that belong to other modes.

    Raises:
      UserError: there are some.
    """
    if arguments and mode != "predict":
        raise UserError(f"{arguments[0]} is not understood: options begin with --")
    if _SUITE.value and mode != "evaluate":
        raise UserError(f"--suite={_SUITE.value} belongs to --mode=evaluate")
    if _WORKDIRS.value and mode not in ("report", "demo"):
        raise UserError("--workdirs is of --mode=report and demo: name one run with --workdir")
    if _WORKDIR.value == "":
        raise UserError("--workdir is empty: name a directory, or leave it out")
    if mode != "train" and not (_WORKDIR.value or _WORKDIRS.value):
        raise UserError(f"--mode={mode} needs --workdir")


def _train(_: list[str]) -> int:
    from cifar_jax import seeds, train
    from cifar_jax.interrupt import Interrupted

    config = CONFIG.value
    if config is None:
        raise UserError("no config: pass --config=configs/final.py")
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    run = train.run if config.get("seeds", 1) == 1 else seeds.run
    try:
        run(config, _directory(_WORKDIR.value or f"runs/{name}"), _BEGAN)
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return TRY_AGAIN
    return 0


def _evaluate(_: list[str]) -> int:
    from cifar_jax import distributed

    workdir = _directory(_WORKDIR.value)
    if _SUITE.value:
        from cifar_jax import robustness

        text = robustness.describe(robustness.run(workdir, _SUITE.value, _SUITE_IMAGES.value))
    else:
        from cifar_jax import evaluate

        text = evaluate.describe(evaluate.run(workdir))
    if distributed.is_writer():
        print(text)
    return 0


def _predict(arguments: list[str]) -> int:
    from cifar_jax import predict

    tried, failures = predict.run(
        _directory(_WORKDIR.value), arguments, _FORMAT.value or "table", _TOP_K.value, _FIT.value
    )
    if failures:
        return SOME_FAILED if tried else BAD_INPUT
    return 0


def _export(_: list[str]) -> int:
    from cifar_jax import export

    print(export.run(_directory(_WORKDIR.value), _FORMAT.value or "stablehlo", _OUTPUT.value))
    return 0


def _report(_: list[str]) -> int:
    from cifar_jax.report import page

    runs = [_directory(path) for path in _WORKDIRS.value]
    if runs:
        print(page.compare(runs, _directory(_WORKDIR.value or runs[0].parent)))
    else:
        print(page.run(_directory(_WORKDIR.value)))
    return 0


def _demo(_: list[str]) -> int:
    if len(_WORKDIRS.value) > 2:
        raise UserError("--workdirs names too many runs: --mode=demo shows one or two")
    if _WORKDIRS.value and _WORKDIR.value:
        raise UserError("--mode=demo takes --workdir or --workdirs, not both")
    try:
        from cifar_jax.demo import server
    except ModuleNotFoundError as error:
        raise UserError(
            f"--mode=demo needs {error.name}: pip install -r requirements-demo.txt"
        ) from error
    server.run([_directory(path) for path in _WORKDIRS.value or [_WORKDIR.value]], _PORT.value)
    return 0


SHARED = ("train", "evaluate")  # by the processes of a run; the others are the work of one
# By malloc's settings: steps of one shape, again and again. Where pictures of any size come and go
# the heap, which then keeps all, would grow.
TUNED = ("train", "evaluate")
MODES: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "report": _report,
    "demo": _demo,
}


def _directory(path: epath.PathLike) -> epath.Path:
    """A directory that the command line names, there or not."""
    directory = epath.Path(path).expanduser()
    try:
        directory.exists()
    except ImportError as error:  # of the client of an object store
        raise UserError(f"{path} cannot be reached: {error}") from error
    return directory
