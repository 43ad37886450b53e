"""Each mode accepts the flags that it declares and refuses all others by name."""

import itertools

import pytest
from absl import flags
from absl.testing import flagsaver

from cifar_jax import cli, export, modes, options, predict
from cifar_jax.config import files as config_file
from cifar_jax.errors import UserError

COMMON = {"mode", "workdir"}
DECLARED = {flag for mode in modes.MODES.values() for flag in mode.flags}
CONFIG = ["--config=configs/final.py", "--config.seed=1", "--noconfig.profile", "--config"]


def uses(name: str):
    """Ways to pass a flag; also with its default value, which is just as much a mistake."""
    flag = flags.FLAGS[name]
    if name == "config":
        return CONFIG
    if flag.boolean:
        return [f"--{name}", f"--no{name}"]
    values = getattr(flag.parser, "enum_values", None) or [flag.default or 3]
    return [f"--{name}={values[0]}"]


USES = {name: uses(name) for name in sorted(DECLARED)}
FOREIGN = [
    (mode, flag, use)
    for (mode, record), (flag, uses) in itertools.product(modes.MODES.items(), USES.items())
    for use in uses
    if flag not in record.flags
]


def parse_and_check(*arguments: str):
    rest = cli.parse(["main.py", *arguments])[1:]
    modes.check(modes.MODE.value, rest)


def refusal(*arguments: str):
    with flagsaver.flagsaver(), pytest.raises(UserError) as caught:
        parse_and_check(*arguments)
    return str(caught.value)


def test_every_flag_is_declared():
    modules = flags.FLAGS.flags_by_module_dict()
    ours = {flag.name for module in (modes, options) for flag in modules[module.__name__]}
    plain = {
        name for name in ours if not name.startswith("config.")
    }  # other tests define these overrides
    assert plain == DECLARED | COMMON


@pytest.mark.parametrize(("mode", "flag", "use"), FOREIGN)
def test_a_flag_of_other_modes_is_refused_by_name(mode: str, flag: str, use: str):
    line = refusal("--workdir=run", f"--mode={mode}", use)
    assert line.startswith(f"{use} belongs to --mode=") and line.endswith(f"not to --mode={mode}")
    owners = {name for name, record in modes.MODES.items() if flag in record.flags}
    assert {name for name in modes.MODES if f"--mode={name}" in line} == owners | {mode}


@pytest.mark.parametrize("mode", sorted(set(modes.MODES) - {"predict"}))
def test_only_predict_takes_arguments(mode: str):
    line = refusal("--workdir=run", f"--mode={mode}", "cat.png")
    assert line == "unexpected argument cat.png: options begin with --"


def test_a_mode_accepts_its_own_flags():
    others = {"predict": ["--format=csv", "cat.png"], "export": ["--format=onnx"], "train": []}
    for mode, record in modes.MODES.items():
        left_out = ("config", "format", "images")  # --images excludes --suite
        uses = [USES[flag][-1] for flag in record.flags if flag not in left_out]
        with flagsaver.flagsaver():
            parse_and_check("--workdir=run", f"--mode={mode}", *uses, *others.get(mode, []))
    with flagsaver.flagsaver():
        parse_and_check("--workdir=run", "--mode=evaluate", "--images=.")


def test_the_modes_and_their_packages_offer_the_same_formats():
    assert modes.MODES["predict"].formats == predict.FORMATS
    assert modes.MODES["export"].formats == tuple(export.FORMATS)


def test_configs_with_different_arguments_have_different_default_workdirs():
    names = {
        "configs/final.py": "final",
        "sweep.py:wide": "sweep-wide",
        "a/sweep.py:width=2,depth=3": "sweep-width=2,depth=3",
        "sweep.py:../../x y[0]": "sweep-..-..-x-y-0-",
    }
    assert {given: config_file.run_name(given) for given in names} == names
