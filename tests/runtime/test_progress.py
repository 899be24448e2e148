import io

import pytest

from seal_jax.runtime import progress


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_progress_is_a_line_now_and_then():
    clock, out = Clock(), io.StringIO()
    with progress.progress(
        200, "adapt", "adapters", done=100, stream=out, clock=clock
    ) as advance:
        for _ in range(50):
            clock.now += 0.5
            advance(2)
    # 4 adapters/s; at 10 s: 40 of the 100 to do.
    assert out.getvalue().splitlines() == [
        "adapt: 140/200 adapters, 4 adapters/s, 15 s left",
        "adapt: 180/200 adapters, 4 adapters/s, 5 s left",
        "adapt: 200/200 adapters, 4 adapters/s, took 25 s",
    ]


def test_progress_of_nothing_and_of_a_failure():
    out = io.StringIO()
    with progress.progress(0, "judge", "answers", stream=out, clock=Clock()):
        pass
    assert out.getvalue() == "judge: 0/0 answers, took 0 s\n"
    out = io.StringIO()
    with (
        pytest.raises(ZeroDivisionError),
        progress.progress(3, "judge", "answers", stream=out) as advance,
    ):
        advance(1 // 0)
    assert out.getvalue() == ""


def test_a_terminal_gets_a_bar():
    out = Terminal()
    with progress.progress(8, "sample", "edits", stream=out) as advance:
        for _ in range(4):
            advance(2)
    text = out.getvalue()
    assert "sample" in text
    assert "8/8" in text
    assert "edits/s" in text
