"""Text from outside cannot send escape sequences to a terminal or fake a line of output."""

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


@pytest.mark.slow
def test_unsafe_characters_are_escaped_and_all_others_kept():
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
def test_printable_text_is_on_one_line(text: ValueError | str, shown: str):
    assert printable(text) == shown


def test_a_log_record_is_one_line():
    record = logging.makeLogRecord({"msg": "%s: skipped", "args": ("\x1b]0;x\x07\n",)})
    assert terminal.Formatter("%(message)s").format(record) == r"\x1b]0;x\x07\n: skipped"


def test_say_keeps_line_breaks_and_escapes_all_else(capsys: pytest.CaptureFixture[str]):
    terminal.say("first \x1b[31m\nsecond \r\u202e")
    assert capsys.readouterr().out == "first \\x1b[31m\nsecond \\r\\u202e\n"


def test_everything_printed_is_escaped():
    """Checks that all other calls of print and the like use `printable` or JSON."""
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
                    f"{path.name}:{call.lineno} may print escape sequences: use terminal.say"
                )
    assert seen


EVIL = ("\x1b]0;title\x07", "new\nline", "\u202egnp", "\udcff\x9b1m")


def test_class_names_cannot_fake_a_line_of_a_table():
    """Class names come from data files, which anyone may have written."""
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
