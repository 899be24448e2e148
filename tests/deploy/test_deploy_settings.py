"""The config on the job: arms, what they ask of the engine, what is refused."""

import pytest
import tiny_model

from seal_jax.deploy.settings import Arm, Deploy
from seal_jax.runtime import config_rules


def built(arg="tiny", **changes):
    config = tiny_model.load_config("deploy", arg)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(dotted)
    return config_rules.build(Deploy, config.to_dict())


@pytest.mark.parametrize(
    "name, arm",
    [
        ("none", Arm("none", frozenset(), False)),
        ("edits", Arm("edits", frozenset(), False)),
        ("edits+merge", Arm("edits", frozenset(), False)),
        ("quiz + gate", Arm("quiz", frozenset({"gate"}), False)),
        ("on_policy+dream+keep", Arm("on_policy", frozenset({"keep"}), True)),
        ("distill+dream+kl+replay", Arm("distill", frozenset({"kl", "replay"}), True)),
    ],
)
def test_an_arm_is_a_rule_with_controls_and_dreams(name, arm):
    assert Arm.of(name) == arm


@pytest.mark.parametrize(
    "names, message",
    [
        ((), r"arms=\(\) must hold"),
        (("merge",), r"'merge' in 'merge' must be one of .*begin an arm with its rule"),
        (("quiz+best",), r"'best' in 'quiz\+best' must be one of"),
        (("none+gate",), r"'none' trains on nothing and stands alone"),
        (("quiz+dream+dream",), r"must name 'dream' once"),
        (("quiz+gate+gate",), r"'quiz\+gate\+gate' must name each control once"),
        (("quiz+keep+gate",), r"'keep' and 'gate' exclude .* in 'quiz\+keep\+gate'"),
        (("quiz+merge+gate",), r"'merge' in 'quiz\+merge\+gate'"),
        (("edits", "edits+merge"), r"'edits\+merge' and 'edits' must differ"),
    ],
)
def test_arms_that_cannot_be_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        built(arms=names)


def test_names_are_those_of_files():
    assert built(arms=(" quiz + gate ",)).arms == ("quiz+gate",)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"inner__loss__mode": "reference", "arms": ("quiz",)}, "use 'masked'"),
        ({"inner__loss__mode": "reference", "arms": ("edits+kl",)}, "'masked'"),
        ({"inner__rule": "quiz"}, r"inner.rule='quiz': here arms name the rules"),
        (
            {"night__teacher": "previous", "arms": ("mix",)},
            "draws answers from the un-edited base",
        ),
        (
            {"night__context": "all"},
            r"night.context='all' must be one of \('log', ",
        ),
        ({"night__teacher": "me"}, r"night.teacher='me' must be one of \('base', "),
        (
            {"night__teacher": "previous", "arms": ("distill+keep",)},
            "keeps adapters apart, and night.teacher='previous' is one model",
        ),
        (
            {"night__teacher": "previous", "arms": ("on_policy+keep",)},
            "keeps adapters apart, and night.teacher='previous' is one model",
        ),
        (
            {"inner__teach__waves": 11, "arms": ("on_policy+gate",)},
            r"waves=11 must be at most inner.epochs=10, for arm 'on_policy\+gate'",
        ),
        (
            {"inner__loss__mode": "reference", "arms": ("on_policy",)},
            "arm 'on_policy' single tokens of a line; use 'masked'",
        ),
        (
            {"night__context": "log", "arms": ("distill_edits",)},
            "learns from the self-edit, which night.context='log' has none of",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        built(**changes)


def test_dreams_need_their_group_and_teachers_theirs():
    values = tiny_model.load_config("deploy", "tiny").to_dict()
    bare = {k: v for k, v in values.items() if k != "label_free"}
    with pytest.raises(ValueError, match=r"arm 'quiz\+dream' needs the group"):
        config_rules.build(Deploy, bare)
    config_rules.build(Deploy, bare | {"arms": ("none", "edits", "quiz+gate")})


def test_the_engine_has_room_for_a_whole_days_teacher():
    exp = built(arms=("none", "distill", "distill+dream", "quiz+keep"))
    sizes = {arm: exp.engine_of(arm) for arm in exp.learning_arms}
    before = (exp.stream.days - 1) * exp.inner.lora.rank
    assert sizes["distill"].frozen_rank == before
    assert sizes["distill"].frozen_rows == exp.stream.count
    # Three sessions of four questions, of answers with end-of-text.
    assert sizes["distill"].bank == 3 * 4 * (exp.answer.max_tokens + 1)
    assert sizes["distill+dream"].bank == 3 * (4 + 6) * (exp.answer.max_tokens + 1)
    assert sizes["quiz+keep"].frozen_rank == 0 and not sizes["quiz+keep"].teach
    assert exp.engine.bank == sizes["distill+dream"].bank
    assert exp.adapters == exp.stream.count and built(arms=("none",)).adapters == 0


def test_an_arm_that_practises_keeps_its_slots_and_no_other_does():
    arms = ("on_policy+replay", "distill+replay", "on_policy+keep")
    exp = built(arms=arms)
    sizes = {arm: exp.engine_of(arm) for arm in arms}
    assert [sizes[arm].resumes for arm in arms] == [True, False, True]
    # Its answers are as long as any may be, whichever wave it is.
    assert sizes[arms[0]].bank == sizes[arms[1]].bank
    assert sizes[arms[0]].frozen_rank == sizes[arms[1]].frozen_rank > 0
    assert sizes[arms[2]].frozen_rank == 0
    assert exp.engine.resumes and not built(arms=("distill",)).engine.resumes


def test_the_engine_has_room_for_replayed_answers_as_well():
    arms = ("distill+replay", "distill+dream+replay", "distill_edits+replay", "quiz")
    exp = built(arms=arms, retain__replay=5)
    sizes = {arm: exp.engine_of(arm).bank for arm in arms}
    answer, text = exp.answer.max_tokens + 1, exp.propose.max_tokens
    assert sizes["distill+replay"] == (3 * 4 + 5) * answer
    assert sizes["distill+dream+replay"] == (3 * (4 + 6) + 5) * answer
    assert sizes["distill_edits+replay"] == 3 * text + 5 * min(text, 64)
    assert sizes["quiz"] == 0
    # Of two nights the second cannot have more again than the first had.
    exp = built(arms=arms, retain__replay=1000, stream__days=2)
    assert exp.engine_of("distill+replay").bank == 2 * 3 * 4 * answer
    assert exp.engine_of("distill_edits+replay").bank == 2 * 3 * text


@pytest.mark.parametrize(
    ("arms", "night", "said"),
    [
        (("quiz",), {"context": "log"}, ["night.context='log' is what statements"]),
        (("quiz", "edits"), {"context": "log"}, []),
        (("quiz", "edits"), {"teacher": "previous"}, ["night.teacher='previous' does"]),
        (("distill",), {"teacher": "previous"}, []),
        (("quiz", "mix"), {}, []),
    ],
)
def test_what_no_arm_reads_is_said(arms, night, said):
    exp = built(arms=arms, **{f"night__{key}": value for key, value in night.items()})
    assert len(exp.idle) == len(said)
    for line, begin in zip(exp.idle, said, strict=True):
        assert line.startswith(begin) and "\n" not in line
