"""What an edit can be worth: the rewards' names, and what stands for a failure.

`scoring.reward`, `label_free` and `dreams` say what each one is.
"""

GRADE = "grade"
LOG_LIKELIHOOD = "log_likelihood"
MAJORITY = "majority"
SELF_ASKED = "self_asked"
RUBRIC = "rubric"
# How much a step on the edit would lower the loss of answers (`dreams`): of those that
# the policy gives itself, or of the gold ones.
GRADIENT, GRADIENT_GOLD = "gradient", "gradient_gold"

REWARDS = (
    *(GRADE, LOG_LIKELIHOOD, MAJORITY, SELF_ASKED, RUBRIC),
    *(GRADIENT, GRADIENT_GOLD),
)
# Those that few-shot tasks have, too.
FEW_SHOT_REWARDS = (GRADE, LOG_LIKELIHOOD, MAJORITY)

# Those that need questions, which passages may lack.
OF_QUESTIONS = (GRADE, LOG_LIKELIHOOD, MAJORITY, GRADIENT_GOLD)
# Those that need the config's group `label_free`.
LABEL_FREE = (SELF_ASKED, RUBRIC, GRADIENT)
# Those of an edit's gradient, and those that no adapter is trained for.
GRADIENTS = (GRADIENT, GRADIENT_GOLD)
UNTRAINED = (RUBRIC, *GRADIENTS)

# What counts for the log-likelihood of an adapter that failed: less than any. Only
# where edits are ranked, and so in the rows' `rewards`; what was measured is None.
# Older runs have it there, too.
WORST = -1e6


def measured(value: float | None) -> float | None:
    """A reward read from a file: None where it only stands for a failed adapter."""
    return None if value == WORST else value
