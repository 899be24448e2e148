"""What an edit can be worth: the rewards' names, and what stands for a failure.

`scoring.reward` and `label_free` say what each one is.
"""

GRADE = "grade"
LOG_LIKELIHOOD = "log_likelihood"
MAJORITY = "majority"
SELF_ASKED = "self_asked"
RUBRIC = "rubric"

REWARDS = (GRADE, LOG_LIKELIHOOD, MAJORITY, SELF_ASKED, RUBRIC)
# Those that few-shot tasks have, too.
FEW_SHOT_REWARDS = (GRADE, LOG_LIKELIHOOD, MAJORITY)

# Those that need questions, which passages may lack.
OF_QUESTIONS = (GRADE, LOG_LIKELIHOOD, MAJORITY)
# Those that need the config's group `label_free`.
LABEL_FREE = (SELF_ASKED, RUBRIC)

# What counts for the log-likelihood of an adapter that failed: less than any. Only
# where edits are ranked, and so in the rows' `rewards`; what was measured is None.
# Older runs have it there, too.
WORST = -1e6


def measured(value: float | None) -> float | None:
    """A reward read from a file: None where it only stands for a failed adapter."""
    return None if value == WORST else value
