"""Graders: strings in, a number from 0 (wrong) to 1 (right) out.

The default, `by_recall`, is the cheap rule that agrees best with the verdicts SEAL's
authors released: about 86 % agreement with their judge, kappa 0.7. An LLM judge is in
`judge`. A blank answer is wrong whatever the grader and whatever the gold answer.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

RECALL_THRESHOLD = 0.6

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


# Graders


def by_recall(
    question: str, gold: str, answer: str, *, threshold: float = RECALL_THRESHOLD
) -> float:
    """1.0 where the answer has at least `threshold` of the gold answer's words."""
    return float(recall(answer, gold) >= threshold and not is_empty(answer))


def by_exact(question: str, gold: str, answer: str) -> float:
    """1.0 where the answer is the gold answer."""
    return float(exact(answer, gold))


def by_f1(question: str, gold: str, answer: str) -> float:
    """The F1 value itself; it is harsh on answers in whole sentences."""
    return f1(answer, gold)


# Every grader that needs no model, by the name a config gives it. Called with
# (question, gold, answer).
LOCAL: dict[str, Callable[[str, str, str], float]] = {
    "recall": by_recall,
    "exact": by_exact,
    "f1": by_f1,
}
