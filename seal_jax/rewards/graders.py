"""Graders: strings in, a number from 0 (wrong) to 1 (right) out.

The default, `by_recall`, is the cheap rule that agrees best with the verdicts SEAL's
authors released: about 86 % agreement with their judge, kappa 0.7. An LLM judge is in
`judge`. A blank answer is wrong whatever the grader and whatever the gold answer.
"""

from collections.abc import Callable

from seal_jax.tasks import wordwise

RECALL_THRESHOLD = 0.6


def by_recall(
    question: str, gold: str, answer: str, *, threshold: float = RECALL_THRESHOLD
) -> float:
    """1.0 where the answer has at least `threshold` of the gold answer's words."""
    return float(
        wordwise.recall(answer, gold) >= threshold and not wordwise.is_empty(answer)
    )


def by_exact(question: str, gold: str, answer: str) -> float:
    """1.0 where the answer is the gold answer."""
    return float(wordwise.exact(answer, gold))


def by_f1(question: str, gold: str, answer: str) -> float:
    """The F1 value itself; it is harsh on answers in whole sentences."""
    return wordwise.f1(answer, gold)


# Every grader that needs no model, by the name a config gives it. Called with
# (question, gold, answer).
LOCAL: dict[str, Callable[[str, str, str], float]] = {
    "recall": by_recall,
    "exact": by_exact,
    "f1": by_f1,
}
