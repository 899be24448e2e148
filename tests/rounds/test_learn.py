"""What the fine-tuning of a policy is given: texts' ends, and the control's edits."""

import types

import pytest

from seal_jax.rounds import control, learn, select
from seal_jax.rounds.lessons import Lesson
from seal_jax.tasks.base import Edit


def fake(**of):
    return types.SimpleNamespace(**of)


POLICY = fake(
    arch=None,
    eos=0,
    params={},
    sequence=lambda text: [9],
    encode=lambda text: list(map(int, text.split())),
)


@pytest.mark.parametrize("trainer", ["prefer", "sft"])
def test_weighed_texts_end_only_where_the_policy_ended_them(monkeypatch, trainer):
    """What is imitated always ends: SEAL's own."""
    seen = []
    module = getattr(learn, trainer)
    monkeypatch.setattr(
        module, "train", lambda params, examples, key, **options: seen.extend(examples)
    )
    lesson = Lesson(Edit(0, 0, "", "1 2 3"), other=Edit(0, 1, "", "1 2"))
    writing = fake(max_tokens=3) if trainer == "prefer" else None
    options = {"cfg": None, "writing": writing, "mesh": None, "tick": None}
    learn.trained(POLICY, [lesson], None, **options)  # pyright: ignore[reportArgumentType]
    if trainer == "sft":
        assert seen == [([9], [1, 2, 3])]
    else:
        assert [tuple(text) for text in seen[0].texts] == [
            ([9], [1, 2, 3], True),
            ([9], [1, 2], False),
        ]


@pytest.mark.parametrize(("rule", "kept"), [("best", 2), ("positive", 4), ("dpo", 2)])
def test_the_control_keeps_as_many_as_the_rule_imitates(monkeypatch, rule, kept):
    edits = [Edit(p, e, "", f"text {e}") for p in range(3) for e in range(5)]
    seen = []
    monkeypatch.setattr(control.proposals, "propose", lambda *a, **k: edits)
    monkeypatch.setattr(
        control.learn, "imitate", lambda run, policy, kept, **k: seen.extend(kept)
    )
    exp = fake(
        seed=0,
        scale=fake(edits=5),
        imitate=fake(rule=rule, start="previous", prefer=fake(most=4)),
        select=fake(rule=select.Rule(k_best=2), k_best=2, written=lambda edits: edits),
    )
    control.random_kept(fake(exp=exp), POLICY, [[0, 1, 2]], None)  # pyright: ignore
    for p in range(3):
        own = [lesson.edit.edit for lesson in seen if lesson.edit.item == p]
        assert len(set(own)) == len(own) == kept
