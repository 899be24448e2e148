import io
import itertools
import re
import sys
import time

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


def test_an_hour_is_some_dozens_of_lines():
    clock, out = Clock(), io.StringIO()
    with progress.progress(
        3600, "adapt", "adapters", stream=out, clock=clock
    ) as advance:
        for _ in range(3600):
            clock.now += 1.0
            advance()
    lines = out.getvalue().splitlines()
    assert 15 < len(lines) < 40
    assert "\r" not in out.getvalue() and "\x1b" not in out.getvalue()
    done = [int(re.findall(r"(\d+)/3600", line)[0]) for line in lines]
    assert max(b - a for a, b in itertools.pairwise(done)) <= 301


def test_the_run_as_a_whole_and_a_note_end_the_line():
    clock, out = Clock(), io.StringIO()
    whole = progress.Whole(1000, "adapters", done=400, clock=clock)
    assert whole.text() == "run: 400 of about 1,000 adapters"
    clock.now += 10
    with progress.progress(
        20, "round_1: adapt", "adapters", stream=out, clock=clock, whole=whole
    ) as advance:
        for _ in range(2):
            clock.now += 10
            advance(10, "MFU 40%")
    # 20 in 30 s, 580 are left: what passed before the phase counts too.
    assert out.getvalue().splitlines() == [
        "round_1: adapt: 10/20 adapters, 1 adapters/s, 10 s left; MFU 40%; "
        "run: 410 of about 1,000 adapters, about 19:40 min left",
        "round_1: adapt: 20/20 adapters, 1 adapters/s, took 20 s; MFU 40%; "
        "run: 420 of about 1,000 adapters, about 14:30 min left",
    ]


def test_a_run_that_does_more_than_was_counted_is_never_beyond_its_end():
    whole = progress.Whole(5, "adapters")
    with progress.progress(9, "a", "adapters", visible=False, whole=whole) as advance:
        advance(9)
    assert whole.text().startswith("run: 9 of about 9 adapters")


def test_a_phase_of_which_nothing_finishes_is_seen_to_live(monkeypatch):
    monkeypatch.setattr(progress, "_FIRST", 0.01)
    out = io.StringIO()
    with progress.progress(2, "adapt", "adapters", stream=out):
        deadline = time.monotonic() + 300
        while not out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    first = out.getvalue().splitlines()[0]
    assert re.fullmatch(r"adapt: 0/2 adapters, \d+ s so far", first)


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


def test_a_terminal_gets_a_bar_and_keeps_the_line_of_a_log():
    out = Terminal()
    whole = progress.Whole(80, "edits")
    with progress.progress(8, "sample", "edits", stream=out, whole=whole) as advance:
        for _ in range(4):
            advance(2)
    text = out.getvalue()
    assert re.search(
        r"sample 8/8, [\d.,e+]+/s, 0 s left; run 10%, about \d+ s left", text
    )
    assert re.fullmatch(
        r"sample: 8/8 edits, [\d.,e+]+ edits/s, took 0 s; run: 8 of about 80 edits, "
        r"about \d+ s left",
        text.splitlines()[-1].rpartition("\x1b[2K")[2].rpartition("\r")[2],
    )


def test_the_live_line_is_one_line_of_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    desc = "ladder/passage_only: adapt"
    whole = progress.Whole(10_000, "adapters")
    with progress.progress(9_999, desc, "adapters", stream=out, whole=whole) as tick:
        tick(3)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue())
    drawn = [part for line in text.splitlines()[:-1] for part in line.split("\r")]
    assert drawn and max(map(len, drawn)) <= 60
    assert any(part.rstrip().endswith("…") for part in drawn)


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_in_a_file_stay_there_while_the_terminal_has_a_bar(monkeypatch, terminal):
    out, printed = Terminal(), Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    with progress.progress(8, "sample", "edits", stream=out):
        print("a line of the run")
    assert ("a line of the run" in printed.getvalue()) is not terminal
    assert ("a line of the run" in out.getvalue()) is terminal
