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

_CONFIG_FLAG = re.compile(r"--?(no)?config(?=[.=]|$)")


def _main(arguments: list[str]) -> None:
    mode = modes.MODES[modes.MODE.value]
    modes.check(modes.MODE.value, arguments[1:])
    if mode.prints:
        streams.require_output()
    # Imported late, so that --help and wrong flags are answered at once.
    from cifar_jax.runtime import compilation, distributed

    compilation.set_up()
    if mode.shared:
        distributed.start(options.JOIN_TIMEOUT.value)
    sys.exit(mode.run(arguments[1:]))


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags with absl; returns the program name and the arguments that are not flags.

    Raises:
      UserError: a flag, or the path, a key or a value of the config is wrong; one line.
    """
    try:
        options.ARGUMENTS[:] = flags.FLAGS.read_flags_from_files(arguments, force_gnu=False)
        given = list(itertools.takewhile(lambda text: text != "--", options.ARGUMENTS))
        config_flags = [text for text in given if _CONFIG_FLAG.match(text)]
        # Parse the mode first: it decides whether the config file is read at all.
        flags.FLAGS([text for text in given if text not in config_flags], known_only=True)
        for text in config_flags:
            modes.refuse_foreign(modes.MODE.value, "config", text)
        if config_flags and not any(re.match("--?config(=|$)", text) for text in config_flags):
            raise UserError(f"{config_flags[0]} overrides a config: pass --config=FILE before it")
        if modes.MODES[modes.MODE.value].tuned and options.TUNE_MEMORY.value:
            memory.restart()  # before a config file imports JAX
        return flags.FLAGS(options.ARGUMENTS)
    except (flags.Error, ValueError) as error:  # absl documents both
        fault, config, reason = str(error), flags.FLAGS["config"].value, None
        if config is not None:
            from cifar_jax import models  # the config file has imported it already

            reason = config_file.explain_value(config, fault, models)
        raise UserError(reason or f"{' '.join(fault.split())}; see --help") from error


def _log_to_stderr() -> None:
    """Logs this package's messages as plain lines; from libraries, only warnings or errors."""
    flags.FLAGS.verbosity = absl_logging.ERROR  # at INFO, JAX lists the missing backends
    handler = logging.StreamHandler()
    handler.setFormatter(terminal.Formatter("%(message)s"))
    package = logging.getLogger("cifar_jax")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    logging.getLogger("jax").setLevel(logging.WARNING)  # jax.distributed logs every step
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns without a home directory


def _run() -> int:
    """Runs the mode; returns the exit status."""
    try:
        app.run(_main, flags_parser=parse)
    except SystemExit as exiting:
        assert isinstance(exiting.code, int | None), exiting.code
        return exiting.code or 0
    except UserError as error:
        terminal.say(f"error: {terminal.printable(error)}", sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except streams.CutOff:
        return CUT_OFF
    raise AssertionError("app.run ends with SystemExit")


def main() -> None:
    """Runs the program: `python main.py`, or `cifar-jax` once the package is installed."""
    # absl's --help describes the main module, so give it this module's docstring and flags.
    sys.modules["__main__"].__doc__ = __doc__
    for module in (options, modes):
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    streams.prepare()
    _log_to_stderr()
    settings.ignore_environment()
    sys.exit(streams.close(_run()))
