"""The flags of `main.py`. Which of them a mode takes, `modes.py` says."""

from absl import flags
from ml_collections import config_flags

from cifar_jax.config import files as config_file

# The command line with its flag files read, which main.py fills in before it parses: absl looks at
# it here already, and where it is wrong nobody could say so.
ARGUMENTS: list[str] = []
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "the experiment: FILE, or FILE:ARGUMENT", sys_argv=ARGUMENTS
)
flags.FLAGS["config"].parser = config_file.Parser(ARGUMENTS)
WORKDIR = flags.DEFINE_string("workdir", None, "where the run lives; default: runs/<config name>")
WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "several runs: of report, to compare, in a page beside the first or in --workdir; of demo, two",
)
FORMAT = flags.DEFINE_string(
    "format",
    None,
    "of predict: table, json (lines) or csv; of export: stablehlo, onnx, onnx-int8 or safetensors",
)
TOP_K = flags.DEFINE_integer("top_k", 3, "of predict: how many classes", lower_bound=1)
FIT = flags.DEFINE_enum(
    "fit",
    "crop",
    ["crop", "whole"],
    "of predict: the middle of an image of other proportions, or all of it, squashed",
)
PORT = flags.DEFINE_integer(
    "port", 7860, "of demo: of 127.0.0.1; 0: any that is free", lower_bound=0, upper_bound=65535
)
OUTPUT = flags.DEFINE_string("output", None, "of export: path; default: WORKDIR/export/...")
FORCE = flags.DEFINE_bool("force", False, "of export: replace what is there")
SUITES = ["corruptions", "cifar10_corrupted", "cifar10_1", "adversarial"]
SUITE = flags.DEFINE_enum("suite", None, SUITES, "of evaluate: harder images to test on")
SUITE_IMAGES = flags.DEFINE_integer(
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


DATA_DIR = flags.DEFINE_string(
    "data_dir",
    "",
    "where this machine has the run's data, if not where it was trained: a TFDS directory or "
    "CIFAR-10's archive; of train: --config.data.dir or --config.data.archive",
)
