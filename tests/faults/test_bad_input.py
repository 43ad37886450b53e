"""Bad command lines and configs get one line with key and remedy, status 2, and write nothing."""

import json
import os
import pathlib

import command_line
import pytest
import tiny
from warm import ROOT, Warm

from cifar_jax.config import migration
from configs import base

pytestmark = pytest.mark.slow

TINY = f"--config={ROOT}/{command_line.TINY.partition('=')[2]}"
CIFAR10 = "--config.data.name=cifar10"
NO_DOWNLOAD = "--config.data.download=False"
WHOLE = "must be an integer from"

# Arguments after --workdir=run (and the tiny config, for train), and part of the error. There are a
# file `file`, an empty directory `empty`, and the workdirs `list` and `half` (damaged configs),
# `group` (not a config) and `other` (another config).
COMMAND_LINES: list[tuple[str, str]] = [
    # Flags.
    ("--nosuch", "nosuch"),
    ("stray", "unexpected argument stray"),
    ("--mode=trian", "train|evaluate"),
    ("--mode=", "train|evaluate"),
    ("--tune_memory=maybe", "--tune_memory=maybe"),
    ("--workdir", "Missing value for flag --workdir"),
    ("--workdir=", "--workdir is empty: give a directory"),
    ("--workdirs=a,b", "--workdirs=a,b belongs to --mode=report and --mode=demo, not to --mode=tr"),
    ("--mode=report --workdirs=a,,b", "--workdirs has an empty path"),
    ("--mode=demo --workdirs=", "--workdirs has an empty path"),
    ("--mode=evaluate --suite=corruptions", "no run in"),
    ("--mode=evaluate --suite_images=3", "--suite_images=3 needs --suite"),
    ("--suite=corruptions", "--suite=corruptions belongs to --mode=evaluate"),
    ("--mode=evaluate --config=nowhere.py", "nowhere.py belongs to --mode=train and --mode=search"),
    ("--mode=report --config nowhere.py", "--config belongs to --mode=train and --mode=search, no"),
    ("--mode=predict --config.seed=1 file", "--config.seed=1 belongs to --mode=train"),
    ("--mode=export --noconfig.profile", "--noconfig.profile belongs to --mode=train"),
    (
        "--mode=predict --notune_memory file",
        "--notune_memory belongs to --mode=train and --mode=ev",
    ),
    ("--mode=predict --format=onnx file", "but of --mode=export: use table, json or csv"),
    ("--mode=predict --format= file", "--format= is not a format of --mode=predict: use table"),
    ("--mode=export --output=", "--output is empty: give a path"),
    ("--mode=evaluate stray", "unexpected argument stray"),
    ("--join_timeout=0", "--join_timeout=0 must be above 0"),
    ("--join_timeout=nan", "--join_timeout=nan must be above 0"),
    ("--notune_memory=1", "--notune_memory=1 does not take an argument"),
    ("--flagfile=nowhere", "Unable to open flagfile"),
    # Keys.
    ("--config.typo=1", "config.typo is not a key"),
    ("--config.learning_rate=1", "did you mean config.optimizer.learning_rate?"),
    ("--config.model.blocks[0].filter=1", "did you mean config.model.blocks[0].filters?"),
    ("--config.model.blocks[7].filters=1", "blocks[7].filters is not a key"),
    ("--config.model.blocks[a].filters=1", "did you mean config.model.blocks[0].filters?"),
    ("--config.=1", "config. is not a key"),
    ("--config.items=1", "config.items is not a key"),
    ("--config.model.filterz=1", "did you mean config.model.blocks[0].filters?"),
    ("--config.epoch=1", "did you mean config.epochs?"),
    ("--config.model.zzz=1", "config.model.zzz is not a key of the config: see docs/config.md"),
    ("--config.data.name.upper=1", "did you mean config.data.name?"),
    ("--config.model.dense[0]=3", "is an item of a tuple: set all of config.model.dense"),
    ("--config.epochs", "Missing value for flag --config.epochs"),
    ("--config.optimizer=3", "config.optimizer is a group of keys: set one, such as"),
    ("--config.data=digits", "config.data is a group of keys"),
    ("--config.model.blocks[0]=3", "config.model.blocks[0] is a group of keys"),
    # Types.
    ("--config.epochs=abc", f"config.epochs {WHOLE} 1 to 2147483647: it is 'abc'"),
    ("--config.epochs=", f"config.epochs {WHOLE} 1"),
    ("--config.epochs=1.5", f"config.epochs {WHOLE} 1"),
    ("--config.seed=1e3", f"config.seed {WHOLE} 0"),
    ("--config.batch_size=1e9", f"config.batch_size {WHOLE} 1"),
    ("--config.model.blocks[1].kernel=3.0", f"config.model.blocks[1].kernel {WHOLE} 1"),
    ("--config.optimizer.learning_rate=fast", "config.optimizer.learning_rate must be a number"),
    ("--config.augment.flip=maybe", "config.augment.flip must be True or False: it is 'maybe'"),
    ("--config.model.dense=(8,", "config.model.dense must be a tuple of widths"),
    ("--config.model.dense=(8,'a')", "config.model.dense must be a tuple of widths"),
    ("--config.model.blocks=3", "blocks[0] must be a base.conv_block(...): it is 3"),
    ("--config.model.blocks=((32,3),)", "blocks[0] must be a base.conv_block(...)"),
    # Ranges.
    ("--config.epochs=0", f"config.epochs {WHOLE} 1"),
    ("--config.epochs=99999999999999", f"config.epochs {WHOLE} 1 to 2147483647"),
    ("--config.epochs=2147483647", "use at most 56512727"),
    ("--config.seed=-1", f"config.seed {WHOLE} 0 to 4294967295"),
    ("--config.batch_size=-32", f"config.batch_size {WHOLE} 1"),
    ("--config.seeds=0", f"config.seeds {WHOLE} 1"),
    (
        "--config.seeds=2 --config.checkpoint.every_steps=0 --config.batch_size=2000",
        "exceeds the 1221 training images of digits",
    ),
    ("--config.batch_size=2000", "exceeds the 1221 training images of digits: use at most 1221"),
    ("--config.eval.batch_size=1000000000", f"config.eval.batch_size {WHOLE} 1 to 65536"),
    ("--config.model.dense=(1000000000,)", "each an integer from 1 to 65536"),
    ("--config.optimizer.learning_rate=nan", "config.optimizer.learning_rate must be"),
    ("--config.optimizer.learning_rate=inf", "config.optimizer.learning_rate must be"),
    ("--config.optimizer.learning_rate=-1", "config.optimizer.learning_rate must be"),
    ("--config.label_smoothing=1", "config.label_smoothing must be"),
    ("--config.plateau.factor=1", "config.plateau.factor must be"),
    ("--config.model.name=resnet", "config.model.name must be one of 'cnn', 'efficientnet_lite'"),
    ("--config.dtype=float16", "config.dtype must be one of 'float32', 'bfloat16'"),
    ("--config.model.blocks[0].padding=same", "padding must be one of 'SAME', 'VALID'"),
    ("--config.data.validation_fraction=1.5", "config.data.validation_fraction must be"),
    ("--config.data.validation_fraction=0.0001", "Choose another value"),
    ("--config.augment.cutout=33", "exceeds the 32 pixels of an image: use at most 32"),
    ("--config.augment.crop_padding=33", "exceeds the 32 pixels of an image: use at most 32"),
    ("--config.init.whitening_images=0", f"config.init.whitening_images {WHOLE} 1"),
    ("--config.init.skip=('(',)", "config.init.skip must be a tuple of strings, each a"),
    # Shapes.
    ("--config.model.blocks[0].pool=64", "config.model.blocks[0] leaves no pixel of a 32x32"),
    ("--config.model.blocks[1].kernel=9", "config.model.blocks[1] leaves no pixel of a 32x32"),
    # Networks.
    ("--config.model.name=speedrun", "config.model.blocks is not a key of the network 'speedrun'"),
    ("--config.model.widths=(1,1,1,1)", "config.model.widths is not a key of the config"),
    ("--config.model.whitening.enabled=True", "config.model.whitening.enabled is not a key of the"),
    ("--config.init.source=nowhere", "no run in nowhere"),
    ("--config.init.source=foo://x/y", "config.init.source=foo://x/y is neither on this machine"),
    # Without effect.
    ("--config.optimizer.momentum=0.5", "config.optimizer.momentum has no effect while"),
    ("--config.augment.crop_fill=reflect --config.augment.crop_padding=0", "has no effect while"),
    ("--config.optimizer.lookahead_decay=0.5", "set config.optimizer.lookahead_every first"),
    # Contradictions.
    ("--config.model.dirac=True --config.model.blocks[1].kernel=4", "blocks[1].kernel to an odd"),
    ("--config.optimizer.weight_decay=0.1", "set config.optimizer.name=adamw"),
    ("--config.optimizer.nesterov=True", "set config.optimizer.name=sgd"),
    (
        "--config.seeds=2 --config.checkpoint.every_steps=0 --config.profile=True",
        "config.profile traces one run",
    ),
    ("--config.augment.alternate_flips=True", "set config.augment.flip=True"),
    (
        "--config.data.validation_fraction=0 --config.plateau.enabled=False",
        "config.early_stopping.enabled needs validation images",
    ),
    ("--config.schedule.warmup_epochs=3", "must be below config.epochs (3)"),
    ("--config.schedule.boundaries=(0.9,0.1)", "config.schedule.boundaries must increase"),
    (
        "--config.schedule.name=piecewise --config.schedule.boundaries=(0.1,)"
        " --config.schedule.warmup_epochs=2",
        "config.schedule.boundaries must come after",
    ),
    (
        "--config.schedule.name=one_cycle --config.schedule.initial_fraction=0.1",
        "set config.schedule.name=linear",
    ),
    # Data.
    ("--config.data.name=", "try cifar10, cifar100 or digits"),
    ("--config.data.name=cifar11", "did you mean"),
    ("--config.data.name=cifar10:9.9.9", "only: 3.0.2"),
    ("--config.data.name=emnist/nosuch", "config.data.name=emnist/nosuch"),
    (f"{CIFAR10} {NO_DOWNLOAD}", "set config.data.dir (or TFDS_DATA_DIR)"),
    (f"{CIFAR10} --config.data.dir=empty", "looked for"),
    (f"{CIFAR10} --config.data.dir=nowhere", "config.data.dir=nowhere does not exist"),
    (f"{CIFAR10} --config.data.dir=~nobody-of-that-name", "does not exist"),
    (f"{CIFAR10} --config.data.archive=file", "config.data.archive=file is truncated or damaged"),
    (f"{CIFAR10} --config.data.archive=empty", "is not the official CIFAR-10 archive"),
    ("--config.data.archive=file", "config.data.archive can only hold cifar10"),
    # Workdirs.
    ("--workdir=file", "--workdir=file is a file: choose another"),
    ("--workdir=s3://bucket/run", "s3://bucket/run cannot be reached"),
    ("--workdir=foo://bucket/run", "--workdir=foo://bucket/run is neither on this machine nor in"),
    ("--workdir=gs:/bucket/run", "--workdir=gs:/bucket/run is neither"),
    (
        "--config.data.cache_dir=gs://bucket",
        "config.data.cache_dir=gs://bucket is not on this machine",
    ),
    (
        f"{CIFAR10} --config.data.dir=hdfs://x/y",
        "config.data.dir=hdfs://x/y is not on this machine",
    ),
    (f"{CIFAR10} --config.data.archive=http://x/y", "archive=http://x/y is not on this machine"),
    ("--workdir=list", "list/config.json is damaged"),
    ("--workdir=half", "half/config.json is damaged"),
    ("--workdir=other", "config.epochs: 40 -> 3"),
    # Other modes.
    ("--mode=evaluate", "no run in run"),
    ("--mode=evaluate --workdir=", "--workdir is empty"),
    ("--mode=evaluate --workdir=empty", "no run in empty"),
    ("--mode=evaluate --images=nowhere", "--images=nowhere does not exist: choose another"),
    ("--mode=evaluate --images=. --suite=corruptions", "--suite and --images exclude each other"),
    ("--mode=train --images=.", "--images=. belongs to --mode=evaluate, not to --mode=train"),
    ("--mode=evaluate --data_dir=nowhere", "--data_dir=nowhere does not exist: choose another"),
    ("--mode=report --data_dir=gs://b/x", "--data_dir=gs://b/x is not on this machine: copy"),
    ("--data_dir=empty", "--data_dir=empty belongs to --mode=evaluate"),
    ("--mode=evaluate --workdir=file", "no run in file"),
    ("--mode=predict", "no images: pass files"),
    ("--mode=predict nowhere.png", "nowhere.png does not exist"),
    ("--mode=predict file", "no run in run"),
    ("--mode=predict https://x/cat.png", "https://x/cat.png is not on this machine: copy"),
    ("--mode=report --workdirs=az://a/b,http://x/y", "az://a/b cannot be reached"),
    ("--mode=report --workdirs=http://x/y,there", "http://x/y is neither on this machine nor in"),
    ("--mode=export --output=foo://x", "--output=foo://x is neither on this machine nor in"),
    ("--mode=export", "no run in run"),
    (
        "--mode=export --format=tflite",
        "--format=tflite is not a format of --mode=export: use stablehlo",
    ),
    ("--mode=report", "no run in run"),
    ("--mode=report --workdirs=nowhere,there", "no run in nowhere"),
    ("--mode=report --workdir=other", "has not finished an epoch yet"),
    ("--mode=demo", "no run in run"),
    ("--mode=demo --workdirs=there", "takes --workdir or --workdirs, not both"),
    ("--mode=demo --workdirs=a,b,c", "--workdirs has too many runs"),
    ("--mode=demo --port=70000", "--port=70000"),
    ("--mode=demo --port=http", "--port=http"),
]

# The body of get_config() below `config = base.get_config()`, or a whole file.
CONFIG_FILES: list[tuple[str, str]] = [
    ("config.optimzer.name = 'sgd'\n    return config", "line 4: AttributeError"),
    ("config.epochs = 'many'\n    return config", "line 4: TypeError"),
    ("raise RuntimeError('no')", "line 4: RuntimeError: no"),
    ("assert config.epochs < 40, 'too long'", "line 4: AssertionError: too long"),
    ("return get_config()", "RecursionError"),
    ("pass", "get_config() must return a config: it returns None"),
    ("return 3", "get_config() must return a config: it returns 3"),
    ("config.unlock()\n    config.epohcs = 3\n    return config", "config.epohcs is not a key"),
    ("config.unlock()\n    del config['model']\n    return config", "start from base.get_config()"),
    ("def get_config(:", "SyntaxError"),
    ("def get_config(name): ...", "missing 1 required positional argument: 'name': give it after"),
    ("return int(None)", "line 4: TypeError"),
    ("raise SystemExit(0)", "line 4: SystemExit: 0"),
    ("return 'long' * 100", "it returns 'long"),
    ("import no_such_module", "line 1: ModuleNotFoundError"),
    ("epochs = 3", "has no get_config(): see configs/base.py"),
]
NO_CONFIG_FILES = ["nowhere.py", "empty", "", "n" * 300]


@pytest.fixture
def place(tmp_path: pathlib.Path):
    """A working directory with files that a user may name by mistake."""
    (tmp_path / "file").write_text("neither archive nor directory")
    (tmp_path / "empty").mkdir()
    configs = {"list": "[]", "half": '{"seed": 0, "epo', "group": '{"model": 3}'}
    configs["other"] = json.dumps(migration.to_json(tiny.typed(base.get_config())))
    for name, text in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    return tmp_path


def refusal(warm: Warm, place: pathlib.Path, *arguments: str):
    """The one line with which main.py refuses the arguments; it must leave all files alone."""
    before = sorted(place.rglob("*"))
    environment = {
        "HOME": str(place),
        "XDG_CACHE_HOME": str(place / "cache"),
        "TFDS_DATA_DIR": str(place / "empty"),
    }
    status, output = warm.run(*arguments, directory=place, environment=environment)
    lines = output.splitlines()
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: "), output
    assert sorted(place.rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"), COMMAND_LINES, ids=[x for x, _ in COMMAND_LINES]
)
def test_a_bad_command_line_gets_one_line(
    warm: Warm, place: pathlib.Path, arguments: str, expected: str
):
    config = () if "--mode=" in arguments else (TINY,)
    assert expected in refusal(warm, place, *config, "--workdir=run", *arguments.split())


@pytest.mark.parametrize(("text", "expected"), CONFIG_FILES, ids=[x for _, x in CONFIG_FILES])
def test_a_bad_config_file_gets_one_line(warm: Warm, place: pathlib.Path, text: str, expected: str):
    head = "from configs import base\ndef get_config():\n    config = base.get_config()\n    "
    whole = text.startswith(("def ", "import ", "epochs"))
    (place / "mine.py").write_text(text if whole else head + text)
    line = refusal(warm, place, "--config=mine.py")
    assert expected in line
    assert "mine.py" in line or "config." in line


def test_overrides_do_not_hide_the_fault_of_a_config_file(warm: Warm, place: pathlib.Path):
    (place / "mine.py").write_text("def get_config(): ...")
    assert "it returns None" in refusal(warm, place, "--config=mine.py", "--config.epochs=3")


@pytest.mark.parametrize("path", NO_CONFIG_FILES)
def test_a_path_without_a_config_file_is_named(warm: Warm, place: pathlib.Path, path: str):
    line = refusal(warm, place, f"--config={path}")
    assert line == f"error: --config={path} is not a file: choose one from configs/"


SWEEP = """from configs import base
def get_config(size):
    config = base.get_config()
    config.epochs = {"wide": 3}[size]
    return config.unlock()
"""


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("mine.py:wide", "config.augment.cutout=33 exceeds"),
        ("mine.py", "missing 1 required positional argument: 'size': give it after a colon"),
        ("mine.py:", "--config=mine.py line 4: KeyError: ''"),
        ("mine.py:narrow", "--config=mine.py line 4: KeyError: 'narrow'"),
        ("mine.py:a:b", "--config=mine.py line 4: KeyError: 'a:b'"),
        ("nowhere.py:wide", "--config=nowhere.py is not a file"),
        ("empty:wide", "--config=empty is not a file"),
        (f"{ROOT}/configs/final.py:wide", "but 1 was given: leave out what follows the colon"),
    ],
)
def test_the_argument_of_a_config_file(warm: Warm, place: pathlib.Path, config: str, expected: str):
    (place / "mine.py").write_text(SWEEP)
    overrides = ("--config.augment.cutout=33", "--config.data.name=digits")
    assert expected in refusal(warm, place, f"--config={config}", *overrides)


def test_an_override_without_a_config_asks_for_it(warm: Warm, place: pathlib.Path):
    assert "--config.seed=1 overrides a config: pass" in refusal(warm, place, "--config.seed=1")


def test_a_file_that_is_not_a_config_is_named(warm: Warm, place: pathlib.Path):
    assert "README.md: SyntaxError" in refusal(warm, place, f"--config={ROOT}/README.md")


def test_train_without_a_config_is_refusal(warm: Warm, place: pathlib.Path):
    assert refusal(warm, place) == "error: no config: pass --config=configs/final.py"


@pytest.mark.parametrize(
    "arguments", ["--config.epochs=abc", "--config.epochs=0", "--config.augment.cutout=33"]
)
def test_a_fresh_process_says_the_same(warm: Warm, tmp_path: pathlib.Path, arguments: str):
    """The three faults are found before imports, before the data is loaded, and after."""
    command = (TINY, f"--workdir={tmp_path / 'run'}", arguments)
    assert command_line.run(*command) == warm.run(*command)
    assert not list(tmp_path.iterdir())


def test_a_device_that_jax_lacks_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    for platforms in ("cuda", "nonsense"):
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        status, output = command_line.run(TINY, f"--workdir={tmp_path / 'run'}")
        assert status == 2
        assert output.startswith(f"error: JAX has no device for JAX_PLATFORMS={platforms}: unset")
        assert output.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workdir_that_may_not_be_written_is_named(warm: Warm, place: pathlib.Path):
    (place / "empty").chmod(0o500)
    status, output = warm.run(TINY, "--workdir=empty/run", directory=place)
    assert status == 2 and "cannot write empty/run" in output.splitlines()[-1]
