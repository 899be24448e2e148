"""What a night trains on: lines of sessions, joined and cut as they are."""

import dataclasses
import types

import pytest

from seal_jax.deploy import lessons, sessions
from seal_jax.deploy.lessons import Noted
from seal_jax.deploy.settings import Arm
from seal_jax.tasks import knowledge, self_edit
from seal_jax.tasks.passage import Passage, Question
from seal_jax.training import plan
from seal_jax.training.inner_rules import RatesConfig, TeachConfig
from seal_jax.training.settings import InnerConfig, LoraConfig, LossConfig
from seal_jax.training.taught import Taught

LOSS = LossConfig("masked", 64, 0)
TEACH = TeachConfig(RatesConfig(*([0.0] * 6)), False, "forward", 0.5, 0, 1, 1.0, 0.5, 0)


def a_job(*lines, **more):
    return plan.Job(lines, (1,), 2, 0.1, 1.0, LOSS, **more)


def test_joined_jobs_keep_what_each_line_is():
    taught = Taught((7, 7, 3, 4), 2, 3)
    first = a_job((1, 2), (3,), cut=(0,))
    second = a_job((9, 3, 4), (5, 6), given=(1, 2), taught=(taught, None))
    third = a_job((8, 8, 8), cut=(0,))
    whole = lessons.joined([first, second, third], (5, 6))
    assert whole.lines == ((1, 2), (3,), (9, 3, 4), (5, 6), (8, 8, 8))
    assert whole.given == (1, 1, 1, 2, 1)
    assert whole.taught == (None, None, taught, None, None)
    assert whole.cut == (0, 4) and whole.seed == (5, 6)
    assert lessons.joined([first], first.seed) == first


def test_a_part_of_a_job_keeps_what_its_lines_are():
    taught = Taught((7, 7, 3, 4), 2, 3)
    whole = a_job(
        *((1, 2), (9, 3, 4), (8, 8, 8)),
        given=(1, 1, 2),
        taught=(None, taught, None),
        cut=(0, 2),
    )
    part = lessons.part(whole, [1, 2])
    assert (part.lines, part.given) == (((9, 3, 4), (8, 8, 8)), (1, 2))
    assert part.taught == (taught, None) and part.cut == (1,)
    assert lessons.part(whole, [0, 1, 2]) == whole


class Words:
    """An encoder of words as they come; what is cut is seen."""

    context = 200

    def __init__(self):
        self.ids = {}

    def encode(self, text):
        words = text.replace("\n", " \n ").split(" ")
        return [self.ids.setdefault(w, len(self.ids)) for w in words if w]

    def sequence(self, text):
        return self.encode(text)

    def line(self, text):
        return self.encode(text)

    def turn(self, text):
        return text


def task(rule="edits"):
    inner = InnerConfig(
        LoraConfig(("q_proj",), 2, 4.0),
        *(1.0, 1, 64, 0, 0, 0, 0, 0),
        learning_rate=0.1,
        epochs=2,
        loss=LOSS,
        rule="edits",
        teach=TEACH,
    )
    exp = types.SimpleNamespace(
        inner=inner,
        edit=types.SimpleNamespace(split="lines", quirks="fixed"),
        answer=types.SimpleNamespace(max_tokens=4),
        label_free=None,
    )
    prompts = self_edit.PROMPTS["plain"], self_edit.ANSWER_PROMPTS["plain"]
    none = knowledge.unconnected
    return knowledge.Knowledge(exp, Words(), *prompts, none, none, rule=rule)


ABOUT = Passage("p", "Karsk", "Ada cooks stew.", (Question("Who?", "gold"),))
NOTHING = dataclasses.replace(ABOUT, questions=())
SESSION = sessions.Session(ABOUT, NOTHING, NOTHING)
LESSON = Noted(SESSION, "one\ntwo", [("Who?", "Ada")], [("What?", "stew")])


def trained(name, *own, context="both"):
    of = task()
    job = lessons.job(of, Arm.of(name), context, own, (3,))
    words = {i: w for w, i in of.blank.ids.items()}
    told = lessons.told(of, Arm.of(name), context, own)
    lines = [] if job is None else [" ".join(words[i] for i in x) for x in job.lines]
    return job, lines, told


CLOSED = "Topic: Karsk \n Question: {} \n Answer: \n {}"


@pytest.mark.parametrize(
    ("context", "lines"),
    [
        ("both", ["Karsk \n one", "Karsk \n two", "Karsk \n Ada cooks stew."]),
        ("edit", ["Karsk \n one", "Karsk \n two"]),
        ("log", ["Karsk \n Ada cooks stew."]),
    ],
)
def test_statements_are_made_from_the_log_the_edit_or_both(context, lines):
    own = LESSON if context != "log" else dataclasses.replace(LESSON, text=None)
    own = dataclasses.replace(own, dreams=[])
    job, found, told = trained("edits", own, context=context)
    assert found == lines and not job.given
    assert [text.replace("\n", " \n ") for text in told] == lines
    # Dreams are questions beside them.
    own = dataclasses.replace(own, dreams=LESSON.dreams)
    job, found, told = trained("edits+dream", own, context=context)
    assert found == [*lines, CLOSED.format("What?", "stew")]
    assert job.given[:-1] == (1,) * len(lines) and job.given[-1] > 1
    assert told[-1] == "Karsk\nWhat? stew"


def test_a_quiz_is_the_logs_questions_with_the_answers_that_were_given():
    own = dataclasses.replace(LESSON, text=None)
    job, found, told = trained("quiz+dream", own)
    assert found == [CLOSED.format("Who?", "Ada"), CLOSED.format("What?", "stew")]
    assert not job.taught and told == ["Karsk\nWho? Ada", "Karsk\nWhat? stew"]
    taught, lines, _ = trained("distill+dream", own)
    assert lines == found and taught.given == job.given
    assert all(one is not None for one in taught.taught)


@pytest.mark.parametrize("arm", ["edits+dream", "quiz+dream"])
def test_a_passage_line_is_trained_once(arm, monkeypatch):
    told = dataclasses.replace(TEACH, passage_line=True)
    monkeypatch.setattr(knowledge.Knowledge, "teach", told)
    _, lines, _ = trained(arm, LESSON)
    assert lines.count("Karsk \n Ada cooks stew.") == 1
    assert CLOSED.format("What?", "stew") in lines


def test_sessions_of_a_day_are_one_job_and_refused_ones_no_part_of_it():
    blank = dataclasses.replace(LESSON, text="---", dreams=[])
    job, found, told = trained("edits", blank, LESSON)
    assert len(found) == 4 == len(told) and job.seed == (3,)
    assert trained("edits", blank)[:2] == (None, [])
    assert trained("quiz", dataclasses.replace(LESSON, pairs=[], dreams=[]))[0] is None


@pytest.mark.parametrize("name", ["quiz", "edits"])
def test_a_context_that_was_trained_on_is_what_questions_are_routed_by(name):
    of = task()
    lined = dataclasses.replace(TEACH, passage_line=True)
    of.exp.inner = dataclasses.replace(of.exp.inner, teach=lined)
    told = lessons.told(of, Arm.of(name), "both", [LESSON])
    assert sum(ABOUT.text in text for text in told) == 1
    bare = dataclasses.replace(LESSON, pairs=[], dreams=[])
    told = lessons.told(of, Arm.of(name), "both", [bare])
    assert sum(ABOUT.text in text for text in told) == (name == "edits")
