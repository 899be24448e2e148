"""How answers are graded, as a config says it."""

import dataclasses

from seal_jax.rewards import graders, own
from seal_jax.rewards.judge import JudgeConfig
from seal_jax.runtime import config_rules, plugins
from seal_jax.runtime.config_rules import Share


@dataclasses.dataclass(frozen=True)
class GradeConfig:
    """`name`: a local rule of `graders.LOCAL`, or "judge" for the endpoint `judge`, or
    `module:function`, the user's own (`own.grader`).

    `judge` may be left out where none is asked.

    `max_missing`: share of a phase's judgements that may be missing before the run
    stops, to be continued later. Missing ones stay out of every mean. Those of the
    ladder are asked for again by a later run; a round's are not, once the policy has
    learned from its selection.
    """

    name: str
    threshold: Share
    max_missing: Share
    judge: JudgeConfig | None

    def __post_init__(self):
        plugins.one_of("grade.name", self.name, (*graders.LOCAL, "judge"))
        if plugins.is_named(self.name):
            own.grader(self.name)
        config_rules.check(self, "grade")
        if self.name == "judge":
            self.endpoint("grade.name='judge'")

    def endpoint(self, why: str) -> JudgeConfig:
        """The judge, which a setting (`why`) asks for.

        Raises:
          ValueError: the group was left out.
        """
        return config_rules.needs_group(self.judge, "grade.judge", why)
