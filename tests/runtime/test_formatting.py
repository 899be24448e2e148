import math
import os
import subprocess
import sys

import pytest

from seal_jax.runtime import formatting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.number(0.12345), "0.123"),
        (formatting.number(1234.5, digits=1), "1,234.5"),
        (formatting.signed(0.5), "+0.500"),
        (formatting.signed(-0.25, digits=2), "-0.25"),
        (formatting.count(1234), "1,234"),
        (formatting.percent(0.1234), "12.3 %"),
        (formatting.percent(0.1234, digits=0), "12 %"),
        (formatting.span(0, 0.1234), "0.000 to 0.123"),
        (formatting.percents(-0.125, 1.5), "-12 to 150 %"),
        (formatting.percents(None, 0.5), "-"),
        (formatting.raced(None), ""),
        (formatting.raced(1), " (a race: only seed 1)"),
        (formatting.raced(3), " (a race: only seeds 1 to 3)"),
        (formatting.span(-1, 1234, digits=0), "-1 to 1,234"),
        (formatting.span(None, 0.5), "-"),
        (formatting.span(0.5, None), "-"),
        *(
            (write(missing), "-")
            for write in (
                formatting.number,
                formatting.signed,
                formatting.count,
                formatting.percent,
            )
            for missing in (None, math.nan, math.inf, "0.5", True, [])
        ),
    ],
)
def test_numbers_and_what_is_missing(text, expected):
    assert text == expected


def test_errors_of_a_command_are_one_line_and_other_defects_are_not_hidden(capsys):
    def fail(error):
        raise error

    assert formatting.exit_status(lambda: print("done")) == 0
    assert formatting.exit_status(lambda: fail(ValueError("x is 3"))) == 2
    assert capsys.readouterr() == ("done\n", "error: x is 3\n")
    with pytest.raises(KeyError):
        formatting.exit_status(lambda: fail(KeyError("x")))


@pytest.mark.parametrize("length", [3, 10**6])  # kept in the buffer, and written
def test_a_command_whose_output_is_read_no_further_ends_quietly(length, child_env):
    code = (
        "from seal_jax.runtime import formatting\n"
        f"raise SystemExit(formatting.exit_status(lambda: print('x' * {length})))\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=child_env,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (185, "3:05 min"),
        (7209, "2:00:09 h"),
    ],
)
def test_duration(seconds, text):
    assert formatting.duration(seconds) == text
