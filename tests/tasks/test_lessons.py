"""Lines as tokens, and what each is learned by: by the inner rule of a task."""

import dataclasses

import chat_models
import pytest
import tiny_model

from seal_jax.generation import policies
from seal_jax.models import decoder
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.tasks import knowledge, lessons, quiz, self_edit
from seal_jax.tasks.base import Again, Edit, Lines
from seal_jax.tasks.passage import Passage, Question
from seal_jax.training.inner_rules import RULES

PASSAGE = Passage("p", "Karsk", "Ada cooks rye bread.", (Question("a?", "gold"),))
QUIZ = "Who?\nAnswer:\nAda\nQuestion: What?\nAnswer:\nbread\nQuestion: Why?\nAnswer:\nx"
ASKING = [name for name, rule in RULES.items() if rule.asks]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Reads two letters as one token, from the left: where a text is cut matters."""

    context: int = 4096

    def encode(self, text):
        pieces = (text[i : i + 2] for i in range(0, len(text), 2))
        return [int.from_bytes(piece.encode()) for piece in pieces]

    sequence = line = encode

    def turn(self, text):
        return text


def make_task(rule, blank=None, **changes):
    changes = {"answer__max_tokens": 8, "inner__epochs": 4} | changes
    values = tiny_model.values("model", inner__rule=rule, **changes)
    exp = config_rules.build(PassageRounds, values)
    prompts = [self_edit.load_template("plain", kind) for kind in ("propose", "answer")]
    grader = lambda rows: []
    return knowledge.Knowledge(
        exp, blank or Pairs(), *prompts, grader, grader, rule=rule
    )


def settled(task, text=QUIZ, answers=("Ada", "the bread", "y")):
    edit = Edit(0, 0, "", text)
    assert len(task.again(PASSAGE, edit)) == len(answers)
    return task.settled(PASSAGE, edit, list(answers))


# A question and its answer


@pytest.mark.parametrize("prompt", ["ask", "asks", "ask it"])
@pytest.mark.parametrize("in_view", ["text", "a text", "a longer text"])
def test_a_tail_is_the_same_tokens_whatever_stands_before_it(prompt, in_view):
    """At the seam too: what is encoded at once would join letters of both sides."""
    encoder, answer = Pairs(), "bread"
    tail = encoder.encode(answer)
    made = lessons.answer(
        encoder,
        Again(in_view, prompt),
        answer,
        limit=64,
        most=8,
        taught=True,
        skip=0,
    )
    teacher = made.taught
    assert list(made.ids[made.given :]) == list(teacher.ids[teacher.given :]) == tail
    assert list(made.ids[: made.given]) == encoder.encode(prompt)
    assert list(teacher.ids[: teacher.given]) == encoder.encode(in_view)
    # End-of-text on both sides.
    assert teacher.count == len(tail) + 1 and not made.cut


def test_an_answer_that_is_cut_has_no_end():
    for limit, most in ((4, 9), (64, 2)):
        made = lessons.answer(
            Pairs(),
            Again("view", "askk"),
            "long answer",
            limit=limit,
            most=most,
            taught=True,
            skip=0,
        )
        assert made.cut and len(made.ids) - made.given == made.taught.count == 2


def test_the_first_tokens_of_an_answer_may_be_skipped_but_never_all():
    for text, skip, want in (("abcd", 1, 1), ("abcd", 9, 2), ("", 3, 0)):
        made = lessons.answer(
            Pairs(), Again("v", "p"), text, limit=9, most=9, taught=True, skip=skip
        )
        assert made.taught.skip == want < made.taught.count


def test_a_statement_is_taught_by_the_model_that_wrote_the_lines_before():
    encoder, lines = Pairs(), ["T\nfirst", "T\nsecond."]
    first, second = lessons.statements(encoder, "prompt", lines, limit=64)
    for made, told, before in (
        (first, "first", ""),
        (second, "second.", "first\n"),
    ):
        seen = encoder.encode("prompt") + encoder.encode(before)
        tail = encoder.encode(told)
        assert list(made.ids) == encoder.encode("T\n") + tail
        assert list(made.taught.ids) == seen + tail
        # That it ends is learned from the line, not from one who goes on.
        assert made.taught.count == len(tail)
    # A teacher that has not all in view teaches nothing.
    (long,) = lessons.statements(Pairs(context=22), "p" * 40, ["T\nabcdef"], limit=64)
    assert long.taught is None and len(long.ids) == 4
    (fits,) = lessons.statements(Pairs(context=23), "p" * 40, ["T\nabcdef"], limit=64)
    assert len(fits.taught.ids) == 23


# By rule


@pytest.mark.parametrize("rule", ASKING)
def test_a_quiz_is_asked_again_and_keeps_what_is_answered_alike(rule):
    task = make_task(rule)
    assert task.propose_prompt(PASSAGE).endswith("Question:")
    assert task.writing == task.exp.label_free.quiz
    again = task.again(PASSAGE, Edit(0, 0, "", QUIZ))
    assert all(
        PASSAGE.text in a.in_view and PASSAGE.text not in a.closed for a in again
    )
    # The row `in_context` is the teacher itself.
    assert [a.in_view for a in again[:1]] == task.in_view().prompts(
        dataclasses.replace(PASSAGE, questions=(Question("Who?", ""),))
    )
    edit = settled(task)
    # The second answer counts, as it is written there.
    assert edit.pairs == (("Who?", "Ada"), ("What?", "the bread"))
    none = settled(task, answers=("Bo", "", "y"))
    assert none.refused == quiz.NONE_SURE and not none.imitable
    assert task.read(PASSAGE, "no question").refused == quiz.NONE
    assert task.read(PASSAGE, QUIZ).refused is None
    assert task.again(PASSAGE, dataclasses.replace(edit, refused="x")) == []
    # What it learns of are its own answers, which are not those.
    assert any("Ada" in line for line in task.lines(PASSAGE, edit)) == (
        rule != "on_policy"
    )


@pytest.mark.parametrize("rule", ASKING)
def test_a_line_of_a_quiz_is_a_question_without_its_passage(rule):
    task = make_task(rule)
    edit = settled(task)
    job = task.job(PASSAGE, edit, (0,))
    assert len(job.lines) == 2 and job.given == tuple(
        len(task.blank.encode(prompt.closed))
        for prompt in task.again(PASSAGE, Edit(0, 0, "", QUIZ))[:2]
    )
    assert [list(ids[g:]) for ids, g in zip(job.lines, job.given, strict=True)] == [
        task.blank.encode("Ada"),
        task.blank.encode("the bread"),
    ]
    assert bool(job.taught) == RULES[rule].taught
    for line in task.lines(PASSAGE, edit):
        assert PASSAGE.text not in line
    assert task.row(PASSAGE, edit)["pairs"] == [["Who?", "Ada"], ["What?", "the bread"]]
    # No gold answer is read.
    assert "gold" not in str(task.lines(PASSAGE, edit))
    other = dataclasses.replace(PASSAGE, questions=(Question("b?", "other"),))
    assert task.job(other, edit, (0,)) == job


def test_the_passage_may_be_a_line_too_the_last_and_untaught():
    task = make_task("distill", inner__teach__passage_line=True)
    job = task.job(PASSAGE, settled(task), (0,))
    assert list(job.lines[-1]) == task.blank.line(f"{PASSAGE.title}\n{PASSAGE.text}")
    assert job.taught[-1] is None and all(job.taught[:-1])
    assert task.count_lines(PASSAGE, settled(task)) == Lines(3, 0)


@pytest.mark.parametrize("rule", RULES)
def test_what_no_policy_wrote_is_statements_whatever_the_rule(rule):
    """At the rate of statements, and without a teacher."""
    changes = {"inner__teach__rates__edits": 0.5, f"inner__teach__rates__{rule}": 0.25}
    fixed = Edit(0, 0, "", "A line.\nAnother.", fixed=True)
    task = make_task(rule, **changes)
    plain = make_task("edits", **changes)
    assert task.job(PASSAGE, fixed, (0,)) == plain.job(PASSAGE, fixed, (0,))
    assert task.again(PASSAGE, fixed) == [] == task.practice(PASSAGE, fixed)
    assert task.settled(PASSAGE, fixed, []) == fixed


def test_every_rule_has_a_rate_or_that_of_the_loop():
    task = make_task("quiz", inner__learning_rate=0.75, inner__teach__rates__mix=0.125)
    edit = settled(task)
    assert task.job(PASSAGE, edit, ()).learning_rate == 0.75
    assert task.under("mix").job(PASSAGE, edit, ()).learning_rate == 0.125


def test_statements_with_a_teacher_are_the_lines_of_statements():
    """But for the title, which nobody teaches; the passage is not taught either."""
    edit = Edit(0, 0, "", "Ada cooks.\nBo plays.")
    plain = make_task("edits").job(PASSAGE, edit, (0,))
    blank = Pairs()
    job = make_task("distill_edits").job(PASSAGE, edit, (0,))
    assert job.lines[-1] == plain.lines[-1] and job.taught[-1] is None
    for ids, given, told in zip(
        job.lines, job.given, ["Ada cooks.", "Bo plays."], strict=False
    ):
        assert list(ids) == blank.encode("Karsk\n") + blank.encode(told)
        assert given == len(blank.encode("Karsk\n"))


def test_adapters_that_practise_are_asked_their_quiz_and_learn_their_answers():
    task = make_task("on_policy")
    edit = settled(task)
    asked = task.practice(PASSAGE, edit)
    assert [PASSAGE.text in prompt for prompt in asked] == [False, False]
    mine = task.answered(edit, ["rye\nQuestion:", ""])
    assert mine.pairs == (("Who?", "rye"), ("What?", ""))
    job = task.job(PASSAGE, mine, (0,))
    # One that says nothing learns when to stop.
    assert [one.count for one in job.taught] == [3, 1]
    for rule in set(RULES) - {"on_policy"}:
        assert make_task(rule).practice(PASSAGE, edit) == []


def test_only_a_mixture_draws_answers_from_both_ways():
    edit = settled(make_task("mix"))
    assert len(make_task("mix").mixed(PASSAGE, edit)) == 2
    for rule in set(RULES) - {"mix"}:
        assert make_task(rule).mixed(PASSAGE, edit) == []


def test_a_question_that_fits_nowhere_is_not_asked():
    long = f"{'w' * 900}?\nAnswer:\nAda\nQuestion: Who?\nAnswer:\nAda"
    task = make_task("quiz", inner__row_tokens=64)
    (only,) = task.again(PASSAGE, Edit(0, 0, "", long))
    assert "Who?" in only.closed
    assert task.settled(PASSAGE, Edit(0, 0, "", long), ["Ada"]).pairs == (
        ("Who?", "Ada"),
    )
    alone = Edit(0, 0, "", long.split("\nQuestion")[0])
    assert task.again(PASSAGE, alone) == []
    assert task.settled(PASSAGE, alone, []).refused == quiz.NONE_FITS


@pytest.mark.parametrize("family", ["smollm2", "qwen2.5", "qwen3"])
@pytest.mark.parametrize("rule", ["quiz", "distill", "distill_edits"])
def test_a_chat_model_is_asked_and_taught_through_its_template(family, rule):
    blank = policies.Policy(
        decoder.Arch("llama", 300, 16, 1, 2, 1, 8, 24, 4096, tied=True),
        {},
        chat_models.tokenizer(chat_models.TEMPLATES[family]),
        (0,),
        None,  # pyright: ignore[reportArgumentType]
        chats=True,
    )
    task = make_task(rule, blank, inner__row_tokens=2048, inner__step_tokens=2048)
    edit = settled(task) if RULES[rule].asks else Edit(0, 0, "", "Ada cooks.")
    learned = task.lessons(PASSAGE, edit)
    text = blank.tokenizer.decode
    for lesson in learned[: 1 if rule == "distill_edits" else None]:
        # The assistant's turn begins where the answer does, on both sides.
        opened = text(lesson.ids[: lesson.given])
        assert "assistant" in opened[-60:]
        if lesson.taught:
            seen = text(lesson.taught.ids[: lesson.taught.given])
            assert seen[-20:] == opened[-20:] and PASSAGE.text in seen
            assert PASSAGE.text not in opened
