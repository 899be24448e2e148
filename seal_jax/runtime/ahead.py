"""Items of an iterator, made before they are asked for."""

import collections
import concurrent.futures
from collections.abc import Iterator

_END = object()


def ahead[T](items: Iterator[T], *, count: int = 1) -> Iterator[T]:
    """The same items, of which a thread makes up to `count` ahead of time.

    What making one raises is raised in its place. `items` is not to be used otherwise.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "ahead") as worker:
        making = collections.deque(
            worker.submit(next, items, _END) for _ in range(count)
        )
        while (item := making.popleft().result()) is not _END:
            making.append(worker.submit(next, items, _END))
            yield item  # pyright: ignore[reportReturnType]
