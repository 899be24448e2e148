"""What jax compiles inside a block: each program's name and text."""

import contextlib
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import jax


class Program(NamedTuple):
    """A program that was compiled, or read from the cache of compiled ones.

    `text` is what the compiler got. It holds the shapes, and constants as well, but
    not whether arguments were bound to a device: for that alone jax compiles the same
    text again.
    """

    name: str
    text: str

    @property
    def arguments(self) -> str:
        """For people."""
        return re.findall(r"@main\((.*?)\) ->", self.text, re.DOTALL)[0]


@contextlib.contextmanager
def recorded() -> Iterator[list[Program]]:
    """A list that has all programs when the block has ended, in their order.

    jax keeps what this process has compiled before: it is not compiled again.
    """
    programs: list[Program] = []
    events: list[str] = []

    def duration(event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(duration)
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_dump_ir_to", folder)
        try:
            yield programs
        finally:
            jax.config.update("jax_dump_ir_to", "")
            jax.monitoring.unregister_event_duration_listener(duration)
        for path in sorted(pathlib.Path(folder).glob("*_compile.mlir")):
            text = re.sub(r' loc\((#loc\d*|unknown|"[^"]*")\)', "", path.read_text())
            text = "\n".join(x for x in text.splitlines() if not x.startswith("#loc"))
            name = re.findall(r"module @(?:jit_)?(\w+)", text)[0]
            programs.append(Program(name, text))
    # Two ways to count, lest neither does with a new version of jax.
    assert len(events) == len(programs)
