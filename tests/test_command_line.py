"""Bad command lines: one line that names key and remedy, status 2, nothing written."""

import command_line
import pytest

BAD = [
    (["--config.typo=1"], "config.typo is no key"),
    (["--config.learning_rate=1"], "did you mean config.optimizer.learning_rate?"),
    (["--config.model.blocks[0].filter=1"], "did you mean config.model.blocks[0].filters?"),
    (["--config.model.blocks[7].filters=1"], "blocks[7].filters is no key"),
    (["--config.seed=abc"], "config.seed=abc"),
    (["--config.optimizer=3"], "config.optimizer=3"),
    (["--config.epochs=0"], "config.epochs must be a whole number, at least 1"),
    (["--config.data.validation_fraction=1.5"], "config.data.validation_fraction must be"),
    (["--config.optimizer.learning_rate=nan"], "config.optimizer.learning_rate must be"),
    (["--config.data.name=cifar11"], "did you mean"),
    (["--config.data.name=cifar10", "--config.data.dir=/nowhere/at/all"], "does not exist"),
    (["--config=configs/none.py"], "--config=configs/none.py does not exist"),
    (["--mode=trian"], "train|evaluate"),
    (["--nosuch"], "nosuch"),
    (["stray"], "stray is not understood"),
    (["--mode=evaluate"], "no run in"),
    (["--mode=predict"], "no images: name files"),
    (["--mode=predict", "nowhere.png"], "nowhere.png does not exist"),
    (["--mode=predict", "LICENSE"], "no run in"),
    (["--mode=report"], "no run in"),
    (["--mode=evaluate", "--suite=corruptions"], "no run in"),
    (["--suite=corruptions"], "--suite=corruptions belongs to --mode=evaluate"),
    (["--mode=report", "--workdirs=nowhere,there"], "no run in nowhere"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_a_mistake_gets_one_line(arguments, expected, tmp_path):
    workdir = tmp_path / "run"
    status, output = command_line.run(command_line.TINY, f"--workdir={workdir}", *arguments)
    assert status == 2
    lines = output.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], output
    assert not workdir.exists()


def test_a_config_file_with_a_mistake_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import base\ndef get_config():\n    config = base.get_config()\n"
        "    config.optimzer.name = 'sgd'\n    return config\n"
    )
    status, output = command_line.run(f"--config={path}")
    assert status == 2
    assert len(output.strip().splitlines()) == 1
    assert f"{path} line 4" in output and "optimzer" in output


def test_no_config_is_a_mistake_too():
    status, output = command_line.run()
    assert (status, output) == (2, "error: no config: pass --config=configs/final.py\n")


def test_help_lists_the_flags():
    _, output = command_line.run("--help")
    assert "--workdir" in output and "--mode" in output and "--config" in output
