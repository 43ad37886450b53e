"""`main.py --help`; tests/faults/test_bad_input.py has what `main.py` refuses."""

import command_line


def test_help_lists_the_flags():
    _, output = command_line.run("--help")
    assert "--workdir" in output and "--mode" in output and "--config" in output
