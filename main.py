"""Train and evaluate CIFAR-10 classifiers.

python main.py --config=configs/final.py [--workdir=DIR] [--mode=MODE] [--config.KEY=VALUE ...]
python main.py --mode=predict --workdir=DIR FILE|DIRECTORY|PATTERN|- ...
"""

import logging
import os
import pathlib
import re
import sys
import time

from absl import app, flags
from absl import logging as absl_logging
from etils import epath
from ml_collections import config_flags

from cifar_jax import config_file, memory
from cifar_jax.errors import BAD_INPUT, CUT_OFF, SOME_FAILED, TRY_AGAIN, UserError

_BEGAN = time.monotonic()
_CONFIG = config_flags.DEFINE_config_file("config", help_string="the experiment, a configs/*.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run lives; default: runs/<config name>")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "predict", "export", "report"],
    "what to do with the workdir",
)
_WORKDIRS = flags.DEFINE_list(
    "workdirs", [], "of --mode=report: runs to compare, in a page beside the first or in --workdir"
)
_FORMAT = flags.DEFINE_string(
    "format",
    None,
    "of --mode=predict: table, json (lines) or csv; "
    "of --mode=export: stablehlo, onnx, onnx-int8 or safetensors",
)
_TOP_K = flags.DEFINE_integer("top_k", 3, "of --mode=predict: how many classes", lower_bound=1)
_FIT = flags.DEFINE_enum(
    "fit",
    "crop",
    ["crop", "whole"],
    "of --mode=predict: the middle of an image of other proportions, or all of it, squashed",
)
_SUITES = ["corruptions", "cifar10_corrupted", "cifar10_1", "adversarial"]
_SUITE = flags.DEFINE_enum("suite", None, _SUITES, "of --mode=evaluate: harder images to test on")
_SUITE_IMAGES = flags.DEFINE_integer(
    "suite_images", None, "only the first so many; default: all, for adversarial 1000", 1
)
_OUTPUT = flags.DEFINE_string("output", None, "of --mode=export: path; default: WORKDIR/export/...")
_TUNE_MEMORY = flags.DEFINE_bool(
    "tune_memory", True, "on Linux CPUs, start once more with huge pages for malloc"
)
_JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 120, "seconds that the processes of one run wait for each other at the start"
)

_OVERRIDE = re.compile(r"--?config\.([^=]*)")


def main(arguments: list[str]) -> None:
    if arguments[1:] and _MODE.value != "predict":
        raise UserError(f"{arguments[1]} is not understood: options begin with --")
    if _SUITE.value and _MODE.value != "evaluate":
        raise UserError(f"--suite={_SUITE.value} belongs to --mode=evaluate")
    if _WORKDIRS.value and _MODE.value != "report":
        raise UserError("--workdirs is of --mode=report: name one run with --workdir")
    if _WORKDIR.value == "":
        raise UserError("--workdir is empty: name a directory, or leave it out")
    if _TUNE_MEMORY.value:
        memory.restart()
    # Imported here: --help and a wrong flag answer at once.
    from cifar_jax import compilation, distributed, evaluate, seeds, train
    from cifar_jax.interrupt import Interrupted

    compilation.keep()
    distributed.start(_JOIN_TIMEOUT.value)
    if _MODE.value == "train":
        if _CONFIG.value is None:
            raise UserError("no config: pass --config=configs/final.py")
        name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        workdir = _directory(_WORKDIR.value or f"runs/{name}")
        try:
            several = _CONFIG.value.get("seeds", 1) != 1
            (seeds if several else train).run(_CONFIG.value, workdir, _BEGAN)
        except Interrupted as interruption:
            print(interruption, file=sys.stderr)
            sys.exit(TRY_AGAIN)
        return
    if _WORKDIRS.value:
        from cifar_jax.report import page

        runs = [_directory(path) for path in _WORKDIRS.value]
        print(page.compare(runs, _directory(_WORKDIR.value or runs[0].parent)))
        return
    if not _WORKDIR.value:
        raise UserError(f"--mode={_MODE.value} needs --workdir")
    workdir = _directory(_WORKDIR.value)
    if _MODE.value == "report":
        from cifar_jax.report import page

        print(page.run(workdir))
    elif _MODE.value == "export":
        from cifar_jax import export

        print(export.run(workdir, _FORMAT.value or "stablehlo", _OUTPUT.value))
    elif _MODE.value == "predict":
        from cifar_jax import predict

        tried, failures = predict.run(
            workdir, arguments[1:], _FORMAT.value or "table", _TOP_K.value, _FIT.value
        )
        if failures:
            sys.exit(SOME_FAILED if tried else BAD_INPUT)
    elif _SUITE.value:
        from cifar_jax import robustness

        print(robustness.describe(robustness.run(workdir, _SUITE.value, _SUITE_IMAGES.value)))
    else:
        print(evaluate.describe(evaluate.run(workdir)))


def _directory(path: epath.PathLike) -> epath.Path:
    """A directory that the command line names, there or not."""
    directory = epath.Path(path).expanduser()
    try:
        directory.exists()
    except ImportError as error:  # of the client of an object store
        raise UserError(f"{path} cannot be reached: {error}") from error
    return directory


def _parse(arguments: list[str]) -> list[str]:
    """absl's flags, with faults in a config's path, keys and values as one line each."""
    paths = [a.partition("=")[2] for a in arguments if re.match("--?config=", a)]
    try:
        rest = flags.FLAGS(arguments)
        if _CONFIG.value is not None:
            _CONFIG.value.items()  # only now is a file that could not be read an error
        elif paths:
            raise TypeError("no config")
        return rest
    except (flags.Error, *config_file.FAULTS) as error:
        keys = [match[1] for match in map(_OVERRIDE.match, arguments) if match]
        reason = paths and config_file.explain(paths[-1], keys, str(error))
        raise UserError(reason or f"{' '.join(str(error).split())}; see --help") from error


def _log_to_stderr() -> None:
    """This package's notes as plain lines; of the libraries' only errors, as absl formats them."""
    flags.FLAGS.verbosity = absl_logging.ERROR  # app.run's INFO has JAX tell which devices lack
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("cifar_jax")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    logging.getLogger("jax").setLevel(logging.WARNING)  # jax.distributed tells each step it takes


if __name__ == "__main__":
    _log_to_stderr()
    try:
        app.run(main, flags_parser=_parse)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except BrokenPipeError:  # who reads the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CUT_OFF)
