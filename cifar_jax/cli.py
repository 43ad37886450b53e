"""Train, evaluate and use CIFAR-10 classifiers.

python main.py --config=configs/final.py [--workdir=DIR] [--mode=MODE] [--config.KEY=VALUE ...]
python main.py --mode=predict --workdir=DIR FILE|DIRECTORY|PATTERN|- ...
"""

import itertools
import logging
import re
import sys

from absl import app, flags
from absl import logging as absl_logging

from cifar_jax import modes, options, terminal
from cifar_jax.config import files as config_file
from cifar_jax.errors import BAD_INPUT, CUT_OFF, INTERRUPTED, UserError
from cifar_jax.runtime import memory, settings, streams

_OF_CONFIG = re.compile(r"--?(no)?config(?=[.=]|$)")


def _main(arguments: list[str]) -> None:
    mode = modes.MODES[modes.MODE.value]
    modes.check(modes.MODE.value, arguments[1:])
    if mode.prints:
        streams.require_output()
    if mode.tuned and options.TUNE_MEMORY.value:
        memory.restart()
    # Imported here: --help and a wrong flag answer at once.
    from cifar_jax.runtime import compilation, distributed

    compilation.set_up()
    if mode.shared:
        distributed.start(options.JOIN_TIMEOUT.value)
    sys.exit(mode.run(arguments[1:]))


def parse(arguments: list[str]) -> list[str]:
    """absl's flags, with faults in a config's path, keys and values as one line each."""
    try:
        options.ARGUMENTS[:] = flags.FLAGS.read_flags_from_files(arguments, force_gnu=False)
        given = list(itertools.takewhile(lambda text: text != "--", options.ARGUMENTS))
        of_config = [text for text in given if _OF_CONFIG.match(text)]
        # First the mode: it decides whether the file of the config is looked at.
        flags.FLAGS([text for text in given if text not in of_config], known_only=True)
        for text in of_config:
            modes.refuse_foreign(modes.MODE.value, "config", text)
        if of_config and not any(re.match("--?config(=|$)", text) for text in of_config):
            raise UserError(f"{of_config[0]} overrides a config: pass --config=FILE before it")
        return flags.FLAGS(options.ARGUMENTS)
    except (flags.Error, ValueError) as error:  # absl documents both
        fault, config = str(error), flags.FLAGS["config"].value
        reason = config and config_file.explain_value(config, fault)
        raise UserError(reason or f"{' '.join(fault.split())}; see --help") from error


def _log_to_stderr() -> None:
    """This package's notes as plain lines; of the libraries' only errors, as absl formats them."""
    flags.FLAGS.verbosity = absl_logging.ERROR  # app.run's INFO has JAX tell which devices lack
    handler = logging.StreamHandler()
    handler.setFormatter(terminal.Formatter("%(message)s"))
    package = logging.getLogger("cifar_jax")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    logging.getLogger("jax").setLevel(logging.WARNING)  # jax.distributed tells each step it takes
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it finds no home


def _run() -> int:
    """Runs the mode; returns the exit status."""
    try:
        app.run(_main, flags_parser=parse)
    except SystemExit as leaving:
        assert isinstance(leaving.code, int | None), leaving.code
        return leaving.code or 0
    except UserError as error:
        terminal.say(f"error: {terminal.printable(error)}", sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except streams.CutOff:
        return CUT_OFF
    raise AssertionError("app.run leaves by SystemExit")


def main() -> None:
    """The program: `python main.py`, or `cifar-jax` where the package is installed."""
    # absl's --help describes the module that was started; its text and its flags are here.
    sys.modules["__main__"].__doc__ = __doc__
    for module in (options, modes):
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    streams.prepare()
    _log_to_stderr()
    settings.ignore_environment()
    sys.exit(streams.close(_run()))
