"""Text from outside cannot steer a terminal, nor look like a line of ours."""

import ast
import logging
import unicodedata

import pytest
import tiny
from test_architecture import SOURCES

from cifar_jax import terminal
from cifar_jax.terminal import printable
from cifar_jax.training import test as evaluate

MARKS = {chr(c) for c in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def test_every_character_is_itself_or_its_escape():
    for code in range(0x110000):
        c = chr(code)
        unsafe = unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in MARKS
        assert printable(c) == (c.encode("unicode_escape").decode() if unsafe else c)


@pytest.mark.parametrize(("text", "shown"), [
    ("cat.png", "cat.png"),
    ("9.41\u202fAM \U0001f469\u200d\U0001f4bb é", "9.41\u202fAM \U0001f469\u200d\U0001f4bb é"),
    ("a\nerror: b\r\x1b[2J\x9b", r"a\nerror: b\r\x1b[2J\x9b"),
    (ValueError("\x07"), r"\x07"),
])  # fmt: skip
def test_text_in_one_line(text, shown):
    assert printable(text) == shown


def test_a_note_of_the_log_is_one_line():
    record = logging.makeLogRecord({"msg": "%s: skipped", "args": ("\x1b]0;x\x07\n",)})
    assert terminal.Formatter("%(message)s").format(record) == r"\x1b]0;x\x07\n: skipped"


def test_lines_are_kept_and_all_else_is_escaped(capsys):
    terminal.say("first \x1b[31m\nsecond \r\u202e")
    assert capsys.readouterr().out == "first \\x1b[31m\nsecond \\r\\u202e\n"


def test_all_that_is_printed_goes_through_it():
    """By `say`, or by what tqdm and JSON print of `printable` text or of ASCII."""
    safe = {"printable", "dumps"}
    seen = 0
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or path.name == "terminal.py":
                continue
            name = ast.unparse(call.func)
            if name in ("print", "tqdm.write", "sys.stdout.write", "sys.stderr.write"):
                seen += 1
                inner = [n for n in ast.walk(call) if isinstance(n, ast.Call)]
                assert {ast.unparse(n.func).split(".")[-1] for n in inner} & safe, (
                    f"{path.name}:{call.lineno} prints what may steer a terminal: use terminal.say"
                )
    assert seen


EVIL = ("\x1b]0;title\x07", "new\nline", "\u202egnp", "\udcff\x9b1m")


def test_names_of_classes_forge_no_line_of_a_table():
    """What a data set calls its classes comes from files of others."""
    exp = tiny.build(tiny.config())
    counts = {
        part: dict(zip(EVIL, values.values(), strict=True))
        for part, values in exp.class_counts().items()
    }
    plain = exp.describe(exp.initial_state())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(exp), "class_counts", lambda self: counts)
        evil = exp.describe(exp.initial_state())
    row = {"precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 5.0}
    result = {
        **{"stopped_early": False, "validation_accuracy": None, "test_accuracy": 0.5},
        **{"test_loss": 1.0, "test_objective": 1.0, "test_examples": 20, "parameters": 9},
        **{"best_epoch": 1, "epochs": 1, "train_seconds": 1.0, "expected_calibration_error": 0.1},
    }
    tables = [
        evaluate.describe({**result, "classification_report": dict.fromkeys(names, row)})
        for names in (tiny.CLASS_NAMES, EVIL)
    ]
    for expected, found in ((plain, evil), tables):
        assert found.count("\n") == expected.count("\n")
        assert not [c for c in found if c != "\n" and printable(c) != c]
