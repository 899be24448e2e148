"""Answers compared word by word, as SQuAD does (Rajpurkar et al. 2016).

It grades answers (`rewards.graders`), and tells whether two of them are the same.
"""

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def is_empty(answer: str) -> bool:
    """Whether an answer has no text: counted in the empty-answer rate."""
    return not answer.strip()


def normalize(text: str) -> str:
    """Lower case, no punctuation, articles or extra space (SQuAD's own metric)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def recall(answer: str, gold: str) -> float:
    """Share of the gold answer's words that the answer has, repeated words counted."""
    common, _, gold_words = _overlap(answer, gold)
    return common / gold_words


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of word precision and recall (Rajpurkar et al. 2016)."""
    common, answer_words, gold_words = _overlap(answer, gold)
    return 2 * common / (answer_words + gold_words)


def exact(answer: str, gold: str) -> bool:
    """Whether both are the same words in the same order."""
    answer_words, gold_words = _words(answer, gold)
    return not is_empty(answer) and answer_words == gold_words


def _words(answer: str, gold: str) -> tuple[list[str], list[str]]:
    """Words of both, by one rule.

    A gold answer of nothing but articles and punctuation ("The", "+") is compared as it
    is written.
    """
    if is_empty(gold):
        raise ValueError(
            f"gold={gold!r}: a gold answer must have text; remove the question"
        )
    if normalize(gold):
        return normalize(answer).split(), normalize(gold).split()
    return answer.lower().split(), gold.lower().split()


def _overlap(answer: str, gold: str) -> tuple[int, int, int]:
    """Words in common, words of the answer, words of the gold answer (at least 1)."""
    answer_words, gold_words = _words(answer, gold)
    common = (Counter(answer_words) & Counter(gold_words)).total()
    return common, len(answer_words), len(gold_words)
