"""Whether a compiled program holds scores of whole rows: of all queries and keys."""

import re


def shapes(text: str, row: int) -> list[str]:
    """The floating-point shapes of `text`, HLO, with two dimensions of whole rows."""
    found = set()
    for shape in re.findall(r"\b(?:f32|bf16|f16)\[[\d,]+\]", text):
        sizes = map(int, shape.split("[")[1][:-1].split(","))
        if sum(size % row == 0 for size in sizes) > 1:
            found.add(shape)
    return sorted(found)
