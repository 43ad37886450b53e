"""Text from outside cannot steer a terminal, nor look like a line of ours."""

import logging
import unicodedata

import pytest

from cifar_jax import terminal
from cifar_jax.terminal import printable

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
