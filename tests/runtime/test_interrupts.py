"""Signals to real processes: how they end, and what they say."""

import signal
import subprocess
import sys

import pytest

from seal_jax import __main__ as commands
from seal_jax.runtime import interrupts

BOTH = [signal.SIGINT, signal.SIGTERM]
HEAD = """\
import os, signal, sys, time
from seal_jax.runtime import interrupts
interrupts.install(interrupts.CONTINUES)
interrupts.GRACE_S = {grace}
def kill():
    os.kill(os.getpid(), signal.{name})
"""
LINE = "stopped; the same command continues\n"
# Until the thread that ends the process has had its time; longer than a test waits.
NEVER, SOON = 600, 0.1


@pytest.fixture
def child(child_env):
    """Starts a program that goes on behind `HEAD`."""
    started = []

    def start(body, *, grace=NEVER, name="SIGINT"):
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD.format(grace=grace, name=name) + body],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_env,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    """(exit status, standard output, standard error)."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize("number", BOTH, ids=lambda s: s.name)
def test_a_loop_that_checks_ends_in_order(child, number):
    body = """
with interrupts.one_line(), interrupts.units():
    try:
        for i in range(10):
            print(i)
            if i == 3:
                kill()
            interrupts.check()
    finally:
        print("closed")
print("not here")
"""
    status, out, err = ended(child(body, name=number.name))
    assert (status, err) == (128 + number, LINE)
    assert out == "0\n1\n2\n3\nclosed\n"


@pytest.mark.parametrize("number", BOTH, ids=lambda s: s.name)
def test_what_never_checks_is_ended_too(child, number):
    # One call of C, as a compilation is: no line of Python runs in the main thread.
    body = """
print("begun", flush=True)
print("said")
with interrupts.one_line(), interrupts.units():
    kill()
    import threading
    threading.Lock().acquire() and time.sleep(600)
"""
    status, out, err = ended(child(body, grace=SOON, name=number.name))
    assert (status, out, err) == (128 + number, "begun\nsaid\n", LINE)


def test_a_second_signal_ends_it_at_once(child):
    body = """
with interrupts.one_line(), interrupts.units():
    kill()
    print("first", flush=True)
    time.sleep(600)
"""
    process = child(body)
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[::2] == (130, LINE)


def test_outside_of_units_the_first_one_does(child):
    assert ended(child("kill()\ntime.sleep(600)")) == (130, "", LINE)


def test_it_is_not_swallowed_where_exceptions_are(child):
    body = """
class Dying:
    def __del__(self):
        kill()
        for _ in range(1000):
            pass
with interrupts.one_line(), interrupts.units():
    Dying()
    interrupts.check()
    print("swallowed")
"""
    assert ended(child(body)) == (130, "", LINE)


def test_output_that_nobody_reads_holds_nothing_up(child):
    body = """
with interrupts.one_line(), interrupts.units():
    print("begun", flush=True)
    while True:
        print("x" * 10_000)
"""
    process = child(body, grace=SOON)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_the_cause_is_shown_on_request(child, child_env):
    child_env["SEAL_TRACEBACK"] = "1"
    body = "with interrupts.one_line(), interrupts.units():\n kill()\n"
    try:
        status, _, err = ended(child(body + " interrupts.check()"))
    finally:
        del child_env["SEAL_TRACEBACK"]
    assert status == 130 and err.endswith(LINE)
    assert "Stopped: stopped by SIGINT" in err


def test_a_signal_that_the_caller_ignores_stays_ignored(child_env):
    """As of `nohup`, and of a shell's background jobs."""
    body = "\nkill(); print('went on')"
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    done = subprocess.run(
        [sys.executable, "-c", ignoring + HEAD.format(grace=0, name="SIGINT") + body],
        capture_output=True,
        text=True,
        env=child_env,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_without_a_signal_a_check_is_nothing():
    with interrupts.units(), interrupts.one_line():
        interrupts.check()


# Commands, interrupted by the first import that takes long

HEAVY = """\
import os, runpy, signal, sys, time
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "absl", "argparse"):
            os.kill(os.getpid(), signal.{name})
            time.sleep(60)
sys.meta_path.insert(0, Hook())
sys.argv = {argv}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
MODULES = sorted({module for module, _ in commands.COMMANDS.values()})
CALLS = [
    *((module, [module]) for module in [*MODULES, "seal_jax.embedded.make_debug"]),
    *(("seal_jax", ["seal-jax", name]) for name in commands.COMMANDS),
]


@pytest.mark.parametrize(
    "at", range(len(CALLS)), ids=[" ".join(argv) for _, argv in CALLS]
)
def test_every_command_ends_in_one_line_from_its_first_import_on(at, child_env):
    (module, argv), number = CALLS[at], BOTH[at % 2]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            HEAVY.format(argv=argv, module=module, name=number.name),
        ],
        capture_output=True,
        text=True,
        env=child_env,
    )
    assert done.returncode == 128 + number, done.stderr
    continues = {"train", "pretrain", "adapt"} & {module.split(".")[-1], argv[-1]}
    assert done.stderr == (LINE if continues else "stopped\n")
