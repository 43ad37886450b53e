"""Train, evaluate and use CIFAR-10 classifiers.

python main.py --config=configs/final.py [--workdir=DIR] [--mode=MODE] [--config.KEY=VALUE ...]
python main.py --mode=predict --workdir=DIR FILE|DIRECTORY|PATTERN|- ...
"""

import logging
import os
import re
import sys

from absl import app, flags
from absl import logging as absl_logging

from cifar_jax import config_file, memory, modes
from cifar_jax.errors import BAD_INPUT, CUT_OFF, INTERRUPTED, UserError

flags.adopt_module_key_flags(modes)
_MODE = flags.DEFINE_enum("mode", "train", list(modes.MODES), "what to do with the workdir")
_TUNE_MEMORY = flags.DEFINE_bool(
    "tune_memory", True, "of train and evaluate: on Linux CPUs, start again with huge pages"
)
_JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 120, "seconds that the processes of one run wait for each other at the start"
)

_OVERRIDE = re.compile(r"--?config\.([^=]*)")


def main(arguments: list[str]) -> None:
    mode = modes.MODES[_MODE.value]
    modes.check(_MODE.value, arguments[1:])
    if _TUNE_MEMORY.value and _MODE.value in modes.TUNED:
        memory.restart()
    # Imported here: --help and a wrong flag answer at once.
    from cifar_jax import compilation, distributed

    compilation.keep()
    if _MODE.value in modes.SHARED:
        distributed.start(_JOIN_TIMEOUT.value)
    sys.exit(mode(arguments[1:]))


def _parse(arguments: list[str]) -> list[str]:
    """absl's flags, with faults in a config's path, keys and values as one line each."""
    paths = [a.partition("=")[2] for a in arguments if re.match("--?config=", a)]
    try:
        rest = flags.FLAGS(arguments)
        if modes.CONFIG.value is not None:
            modes.CONFIG.value.items()  # only now is a file that could not be read an error
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
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # who reads the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CUT_OFF)
