"""How many readings and steps it takes to continue requests, by lengths alone."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from seal_jax.generation import generate, policies
from seal_jax.generation.settings import Decoding


class Drained(NamedTuple):
    """What emptying a queue took; `occupancy` is the share of rows that wrote."""

    readings: int
    steps: int
    occupancy: float


def drained(
    asked: Sequence[tuple[generate.Request, int]], decoding: Decoding, *, adapters: int
) -> Drained:
    """Rows are refilled singly, longest text first."""
    per = policies.PER_PAGE if adapters else 1
    rows = max(1, decoding.batch // per) * per
    some = max(1, -(-rows // generate.READ_SHARE))
    prompts = len({request for request, _ in asked})
    free = [0] * rows
    for tokens in sorted((tokens for _, tokens in asked), reverse=True):
        heapq.heappush(free, heapq.heappop(free) + tokens)
    steps = max(free)
    written = sum(tokens for _, tokens in asked)
    return Drained(-(-prompts // some), steps, written / (rows * steps))
