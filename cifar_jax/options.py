"""The flags of `main.py`; `modes.py` says which mode uses which."""

from absl import flags
from ml_collections import config_flags

from cifar_jax.config import files as config_file
from cifar_jax.errors import UserError

# The command line with flag files expanded, filled in by `cli.parse`. Without it ml_collections
# would read sys.argv on import, too early to report a wrong flag.
ARGUMENTS: list[str] = []
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "config file of the experiment: FILE or FILE:ARGUMENT", sys_argv=ARGUMENTS
)
flags.FLAGS["config"].parser = config_file.Parser(ARGUMENTS)
WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run; default: runs/<config name>")
WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "comma-separated runs; report: compares them on a page in --workdir, by default next to the "
    "first run; demo: shows up to two side by side",
)
FORMAT = flags.DEFINE_string(
    "format",
    None,
    "predict: table, json (JSON Lines) or csv; export: stablehlo, onnx, onnx-int8 or safetensors",
)
TOP_K = flags.DEFINE_integer("top_k", 3, "predict: how many classes to print", lower_bound=1)
FIT = flags.DEFINE_enum(
    "fit",
    "crop",
    ["crop", "whole"],
    "predict: how to fit an image of other proportions: crop its middle, or squash the whole of it",
)
PORT = flags.DEFINE_integer(
    "port", 7860, "demo: port on 127.0.0.1; 0: any free port", lower_bound=0, upper_bound=65535
)
OUTPUT = flags.DEFINE_string("output", None, "export: where to write; default: WORKDIR/export/...")
FORCE = flags.DEFINE_bool("force", False, "export: replace an existing file")
SUITES = ["corruptions", "cifar10_corrupted", "cifar10_1", "adversarial"]
SUITE = flags.DEFINE_enum("suite", None, SUITES, "evaluate: harder images to test on")
SUITE_IMAGES = flags.DEFINE_integer(
    "suite_images", None, "with --suite: test only this many; default: all, 1000 for adversarial", 1
)
IMAGES = flags.DEFINE_string(
    "images", "", "evaluate: a directory with one of image files for each class, to test on instead"
)
TUNE_MEMORY = flags.DEFINE_bool(
    "tune_memory", True, "train, evaluate, search: on Linux CPUs, restart with huge pages"
)
JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout",
    120,
    "train, evaluate: seconds that the processes of a run wait for each other at the start",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    "",
    "where this machine keeps the run's data, if not where they were during training: a TFDS "
    "directory or CIFAR-10's archive; for train, set --config.data.dir or --config.data.archive",
)


def check() -> None:
    """Raises UserError for values that no mode takes, or that exclude each other."""
    for flag, what in ((WORKDIR, "directory"), (OUTPUT, "path")):
        if flag.value == "":
            raise UserError(f"--{flag.name} is empty: give a {what}, or leave it out")
    if WORKDIRS.present and not all(WORKDIRS.value or [""]):
        raise UserError("--workdirs has an empty path: separate paths by single commas")
    if SUITE.value and IMAGES.value:
        raise UserError("--suite and --images exclude each other: leave one out")
    if SUITE_IMAGES.present and SUITE.value is None:
        raise UserError(f"--suite_images={SUITE_IMAGES.value} needs --suite")
    if not 0 < JOIN_TIMEOUT.value <= 86_400:
        shown = f"--join_timeout={JOIN_TIMEOUT.value:g}"
        raise UserError(f"{shown} must be above 0 and at most 86400")
