"""The phases of arc_round.py's round, for tasks to learn from and those held out."""

import dataclasses

import arc_task
import round_phases
import workload

from seal_jax.generation import generate, policies
from seal_jax.rounds import select
from seal_jax.training import inner, packed

SETS = ("train", "heldout")
# Those of a set, and those between the two.
OF_SET = ("propose", "adapt", "evaluate")
PHASES = (
    *OF_SET,
    "select",
    "imitate",
    *(f"heldout_{name}" for name in OF_SET),
)


def phase(name: str, which: str) -> str:
    """The phase of that name of one of `SETS`."""
    return name if which == SETS[0] else f"{which}_{name}"


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done for one set of tasks."""

    proposed: generate.Generated
    trained: list[packed.TrainedAdapters]
    answered: list[generate.Generated]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a round took and did; by set, and what was imitated with its losses."""

    clock: round_phases.Clock
    done: dict[str, Done]
    kept: list[tuple[int, int]]
    losses: list[float]


def run_round(
    policy: policies.Policy,
    task: arc_task.Round,
    cfg: inner.EngineConfig,
    *,
    warm_up: bool = False,
) -> Outcome:
    """Runs a round; to warm up, with empty texts and one step of each adapter."""
    clock, done = round_phases.Clock(PHASES), {}
    done["train"] = _adapted(policy, task.train, cfg, clock, "train", warm_up)
    with clock("select"):
        kept = choose(task.train)
    texts = iter(done["train"].proposed.tokens)
    written = {
        (t, e): [workload.EOS] * tokens if warm_up else next(texts)
        for t, own in enumerate(task.train.texts)
        for e, tokens in enumerate(own)
    }
    pairs = [(task.train.prompts[t], written[t, e]) for t, e in kept]
    with clock("imitate"):
        policy, losses = round_phases.learn(policy, task.exp.imitate, pairs)
    done["heldout"] = _adapted(policy, task.heldout, cfg, clock, "heldout", warm_up)
    lengths = [(len(prompt), len(text)) for prompt, text in pairs]
    return Outcome(clock, done, lengths, losses)


def _adapted(
    policy: policies.Policy,
    part: arc_task.Part,
    cfg: inner.EngineConfig,
    clock: round_phases.Clock,
    which: str,
    warm_up: bool,
) -> Done:
    exp = part.exp
    propose, adapt, evaluate = (phase(p, which) for p in OF_SET)
    wanted = [
        (generate.Request(prompt), tokens)
        for prompt, own in zip(part.prompts, part.texts, strict=True)
        for tokens in own
    ]
    with clock(propose):
        proposed = round_phases.write(
            policy, None, wanted, exp.propose, warm_up=warm_up
        )
    trained, answered = [], []
    for first in range(0, len(part.trials), cfg.pool):
        chunk = part.trials[first : first + cfg.pool]
        with clock(adapt):
            done = round_phases.train(
                policy,
                [part.job(trial, first_step_only=warm_up) for trial in chunk],
                chunk,
                cfg,
                what="task, edit",
            )
        with clock(evaluate):
            answered.append(
                round_phases.write(
                    policy,
                    done.adapters,
                    part.requests(chunk),
                    exp.answer,
                    warm_up=warm_up,
                )
            )
        # Only the counts: the next chunk's adapters need the memory.
        trained.append(done._replace(adapters={}))
        del done
    return Done(proposed, trained, answered)


def choose(part: arc_task.Part) -> list[tuple[int, int]]:
    """(task, edit) of what is kept, by the made-up rewards."""
    cfg = part.exp.select
    # Random ties would need a seed, and a passage there is none.
    rule = dataclasses.replace(cfg.rule, ties="first")
    kept = []
    for task, rewards in enumerate(arc_task.rewards(part)):
        best = select.best(
            list(map(select.Candidate, rewards)),
            rule,
            # Without an adapter nothing is solved.
            baseline=0.0,
        )
        kept += [(task, edit) for edit in best]
    return kept
