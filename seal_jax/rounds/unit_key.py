"""Names of units of work in the journal.

A unit is what a killed run does not do again. Its key is a path: the phase it belongs
to, the kind of work, and a number where there are many, such as "round_1/adapt/0",
"ladder/base/grade" or "stop/2".
"""

import dataclasses
from collections.abc import Iterable
from typing import Self

ADAPT = "adapt"


@dataclasses.dataclass(frozen=True)
class UnitKey:
    """`phase` may itself be a path, or empty; `index` is None for a single unit."""

    phase: str
    kind: str
    index: int | None = None

    def __str__(self) -> str:
        parts = [self.phase] * bool(self.phase) + [self.kind]
        return "/".join(parts + [str(self.index)] * (self.index is not None))

    @property
    def stage(self) -> str:
        """The phase and the kind: what all units of one piece of work share."""
        return str(dataclasses.replace(self, index=None))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that `str` wrote; any text is one."""
        head, _, last = text.rpartition("/")
        if head and last.isdecimal() and str(int(last)) == last:
            phase, _, kind = head.rpartition("/")
            return cls(phase, kind, int(last))
        return cls(head, last)


def count(keys: Iterable[str], kind: str) -> int:
    """How many of the keys are numbered units of that kind."""
    parsed = map(UnitKey.parse, keys)
    return sum(key.kind == kind and key.index is not None for key in parsed)
