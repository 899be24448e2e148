"""Words and trigrams of texts: what one has that another lacks.

Texts are compared as lower-cased runs of word characters (`\\w+`), and trigrams as
sets.
"""

import re

type Gram = tuple[str, ...]

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores of any script."""
    return _WORD.findall(text.lower())


def grams(text: str, n: int) -> list[Gram]:
    """All runs of `n` words in order, with repeats; none in a shorter text."""
    text_words = words(text)
    return list(zip(*(text_words[i:] for i in range(n)), strict=False))


def trigrams(text: str) -> set[Gram]:
    """The different runs of three words."""
    return set(grams(text, 3))


def novel_share(passage: str, completion: str) -> float | None:
    """novel3: share of a completion's distinct trigrams that the passage lacks.

    None for a completion of fewer than three words.
    """
    written = trigrams(completion)
    return len(written - trigrams(passage)) / len(written) if written else None


def index(a: set[Gram], b: set[Gram]) -> float:
    """Jaccard index of two sets that are not both empty."""
    return len(a & b) / len(a | b)
