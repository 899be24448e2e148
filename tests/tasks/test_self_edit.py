"""Prompts render untouched content; completions are cut as the rules say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.tasks import self_edit, strategies
from seal_jax.tasks.passage import Passage

PASSAGE = Passage("id", "Karsk", "Ada cooks rye bread. Boris plays cello.", ())
LISTS = ("implications", "implications-long", "implications-very-long")


# Prompts


# Those of two steps, and lists that are begun, have a layout of their own.
OTHERS = {*strategies.TWO_STEPS, *strategies.BEGUN}


@pytest.mark.parametrize("name", [n for n in self_edit.PROMPTS if n not in OTHERS])
def test_propose_prompts_have_the_layout(name):
    prompt = self_edit.propose_prompt(self_edit.load_template(name, "propose"), PASSAGE)
    body = f"Passage:\n{PASSAGE.title}\n{PASSAGE.text}\n\n"
    instruction, found, cue = prompt.partition(body)
    assert found
    if name == "plain":
        assert instruction == ""
    else:
        assert re.fullmatch(r"[^\n]+\n\n", instruction), "one line, one blank line"
    cues = dict.fromkeys((*LISTS, "plain"), "Implications:\n")
    cues |= {"rewrite": "Rewritten passages:\n", "self-qa": "Question 1: "}
    assert cue == cues[name]


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_prompts_show_the_passage_and_end_where_a_line_begins(name):
    prompt = self_edit.propose_prompt(self_edit.load_template(name, "propose"), PASSAGE)
    before, after = prompt.split(PASSAGE.text)
    assert f"Passage:\n{PASSAGE.title}\n" in before
    assert after.endswith(("\n", "\n1."))


@pytest.mark.parametrize("name", self_edit.ANSWER_PROMPTS)
def test_answer_prompts_tell_topic_and_question_but_not_the_passage(name):
    template = self_edit.load_template(name, "answer")
    prompt = self_edit.answer_prompt(template, PASSAGE, "What does Ada cook?")
    assert "Topic: Karsk\n" in prompt
    assert "What does Ada cook?\nAnswer:\n" in prompt
    assert prompt.endswith("Answer:\n")
    assert PASSAGE.text not in prompt


def test_plain_prompts_are_what_the_embedded_model_was_trained_on():
    assert self_edit.propose_prompt(self_edit.PROMPTS["plain"], PASSAGE) == (
        "Passage:\nKarsk\nAda cooks rye bread. Boris plays cello.\n\nImplications:\n"
    )
    plain = self_edit.ANSWER_PROMPTS["plain"]
    assert self_edit.answer_prompt(plain, PASSAGE, "Who?") == (
        "Topic: Karsk\nQuestion: Who?\nAnswer:\n"
    )


def test_prompts_with_the_passage_in_view():
    """The closed-book prompt behind the passage; the plain one as the model read it."""
    shown = "Passage:\nKarsk\nAda cooks rye bread. Boris plays cello.\n\n"
    ask, mine = self_edit.in_view_prompt, "{passage}? {title}: {question}"
    plain, concise = (self_edit.ANSWER_PROMPTS[n] for n in ("plain", "concise"))
    assert ask(plain, PASSAGE, "Who?") == f"{shown}Question: Who?\nAnswer:\n"
    closed = self_edit.answer_prompt(concise, PASSAGE, "Who?")
    assert ask(concise, PASSAGE, "Who?") == shown + closed
    # A file's own words stay what they are, and so does what a passage holds.
    assert ask(mine, PASSAGE, "Who?") == f"{shown}{{passage}}? Karsk: Who?"
    odd = Passage("", "T", "{question} {title}", ())
    assert ask(concise, odd, "Q{passage}").startswith(
        "Passage:\nT\n{question} {title}\n"
    )


@pytest.mark.parametrize(
    "text", ["a {x} b", "{}", "{0}", "{title}", "{passage}", "{question}", r"\1 \g<0>"]
)
def test_braces_in_the_content_stay(text):
    passage = Passage("", f"T{text}", f"P{text}", ())
    proposed = self_edit.propose_prompt(self_edit.PROMPTS["implications"], passage)
    assert f"\nT{text}\nP{text}\n" in proposed
    answered = self_edit.answer_prompt("{title}|{question}|{", passage, f"Q{text}")
    assert answered == f"T{text}|Q{text}|{{"


def test_a_template_file_is_used_as_it_is(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text('{"about": {title}}: {passage} -> \n\n', encoding="utf-8")
    template = self_edit.load_template(str(path), "propose")
    assert self_edit.propose_prompt(template, PASSAGE) == (
        f'{{"about": Karsk}}: {PASSAGE.text} -> \n\n'
    )


@pytest.mark.parametrize(
    "name, kind, error, message",
    [
        ("haiku", "propose", ValueError, "'haiku' must be one of implications, "),
        ("haiku", "answer", ValueError, "'haiku' must be one of concise, plain, or"),
        ("concise", "propose", ValueError, "'concise' must be one of implications"),
        (
            "none.txt",
            "propose",
            FileNotFoundError,
            "'none.txt': no such file; give one",
        ),
        ("no/such", "answer", FileNotFoundError, "'no/such': no such file; give one"),
        ("", "propose", ValueError, "'' must be one of"),
        ("plain", "grade", ValueError, "kind='grade' must be one of propose, answer"),
    ],
)
def test_unknown_templates_are_refused(
    name, kind, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=re.escape(message)) as caught:
        self_edit.load_template(name, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, kind, message",
    [
        (b"Say {passage}", "propose", "{title} and {passage}; add {title}"),
        (b"nothing", "propose", "add {title} and {passage}"),
        (b"{title} {passage}", "answer", "{title} and {question}; add {question}"),
        (b"", "answer", "add {title} and {question}"),
        (b"{title}{passage}\xff", "propose", "must be UTF-8 text"),
    ],
)
def test_unfit_template_files_are_refused(content, kind, message, tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        self_edit.load_template(str(path), kind)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# Splitting: (completion, rule, texts by the reference's rules, texts as fixed)

PAIRS = "Who?\nAnswer: Ada\n\nQuestion 2: What?\nAnswer: bread\nand butter"
PAIRED = [
    "Question 1: Who?\nAnswer: Ada",
    "Question 2: What?\nAnswer: bread\nand butter",
]
NUMBERED = "Who?\nAnswer 1: Ada\nQuestion 2: What?\nAnswer 2: bread"
LONE = "Who?\nAnswer 1: Ada"
ANNOUNCED = "My list.\nQuestion 1: Who?\nAnswer: Ada"
SPLITS = {
    "lines": ("a\nb", "lines", ["a", "b"], ...),
    "lines are stripped, blanks dropped": (
        " a \n\n \t\n b\r\n",
        "lines",
        ["a", "b"],
        ...,
    ),
    "numbers and bullets stay": (
        "1. a\n2. b\n- c",
        "lines",
        ["1. a", "2. b", "- c"],
        ...,
    ),
    "announcement": ("Sure:\n1. a\n2. b", "lines", ["1. a", "2. b"], ...),
    "announcement, blank line": ("Sure:\n\n 1. a", "lines", ["1. a"], ...),
    "10. is no first item": ("x\n10. a", "lines", ["x", "10. a"], ...),
    "first line is item 1": ("1. a\n1. b", "lines", ["1. b"], ...),
    "one line": ("1. a", "lines", ["1. a"], ...),
    "segments": ("a\nb\n---\nc", "lines", ["a", "b", "c"], ...),
    "segments announce themselves": (
        "x\n1. a\n---\ny\n1. b",
        "lines",
        ["1. a", "y", "1. b"],
        ["1. a", "1. b"],
    ),
    "a segment of one line": ("x\n---\n1. a", "lines", ["1. a"], ["x", "1. a"]),
    "segments, empty ones dropped": ("---\na\n------\n", "lines", ["a"], ...),
    "dashes inside a line": ("a---b", "lines", ["a", "b"], ...),
    "whole": (" a\nb \n", "whole", ["a\nb"], ...),
    "whole, segments": ("a\nb\n---\nc\n", "whole", ["a\nb", "c"], ...),
    "whole, questions": (PAIRS, "whole", [PAIRS], ...),
    "empty": ("", "lines", [], ...),
    "blank": (" \n", "lines", [], ...),
    "empty, whole": ("", "whole", [""], []),
    "blank, whole": (" \n", "whole", [""], []),
    "only dashes": (" --- ", "lines", ["---"], []),
    "only dashes, whole": (" ---\n---", "whole", ["---\n---"], []),
    "other line ends": (
        "a\x0cb\u2028c\x85d\x1ee",
        "lines",
        list("abcde"),
        ["a\x0cb\u2028c\x85d\x1ee"],
    ),
    "pairs": (PAIRS, "lines", PAIRED, ...),
    "pairs with their first label": (
        f"Question 1: {PAIRS}",
        "lines",
        [f"{PAIRED[0]}\n", PAIRED[1]],
        PAIRED,
    ),
    "pairs in segments": (
        "Question 1: a\nAnswer: b\n---\nQuestion 2: c\nAnswer: d",
        "lines",
        ["Question 1: a\nAnswer: b\n---", "Question 2: c\nAnswer: d"],
        ["Question 1: a\nAnswer: b", "Question 2: c\nAnswer: d"],
    ),
    "a question and its answer in two segments": (
        "Question 1: a\n---\nAnswer: b",
        "lines",
        ["Question 1: a\n---\nAnswer: b"],
        ["Question 1: a", "Answer: b"],
    ),
    "spaces before the colon": (
        "Question 1: a\nAnswer : b\nQuestion  2: c\nAnswer\t: d",
        "lines",
        ["Question 1: a\nAnswer : b", "Question  2: c\nAnswer\t: d"],
        ["Question 1: a", "Answer : b", "Question  2: c", "Answer\t: d"],
    ),
    "numbered answers": (
        NUMBERED,
        "lines",
        NUMBERED.split("\n"),
        ["Question 1: Who?\nAnswer 1: Ada", "Question 2: What?\nAnswer 2: bread"],
    ),
    "one pair": (LONE, "lines", LONE.split("\n"), [f"Question 1: {LONE}"]),
    "announced pairs": (
        ANNOUNCED,
        "lines",
        ["Question 1: My list.", "Question 1: Who?\nAnswer: Ada"],
        ["Question 1: Who?\nAnswer: Ada"],
    ),
    "numbered on": (
        "Question 3: Who?\nAnswer: Ada",
        "lines",
        ["Question 3: Who?\nAnswer: Ada"],
        ...,
    ),
    "questions alone": (
        "Who?\nQuestion 2: What?",
        "lines",
        ["Who?", "Question 2: What?"],
        ...,
    ),
    "answer said in passing": (
        "She said.\nAn Answer: no.",
        "lines",
        ["She said.", "An Answer: no."],
        ...,
    ),
}


@pytest.mark.parametrize("case", SPLITS)
@pytest.mark.parametrize("quirks", self_edit.QUIRKS)
def test_split(case, quirks):
    completion, rule, reference, fixed = SPLITS[case]
    want = reference if quirks == "reference" or fixed is ... else fixed
    assert self_edit.split(completion, rule=rule, quirks=quirks) == want


@pytest.mark.parametrize(
    "option, message",
    [
        ({"rule": "word"}, "rule='word' must be one of lines, whole"),
        ({"quirks": "none"}, "quirks='none' must be one of fixed, reference"),
    ],
)
def test_unknown_rules_are_refused(option, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        self_edit.split("a", **({"rule": "lines", "quirks": "fixed"} | option))


@pytest.mark.parametrize(
    "completion, quirks, texts",
    [
        ("1. a\n2. b", "fixed", ["1. a", "2. b"]),
        ("1. a\n2. b", "reference", ["1. a", "2. b"]),
        ("", "fixed", []),
        ("", "reference", []),
    ],
)
def test_train_lines_carry_the_title_and_end_with_the_passage(
    completion, quirks, texts
):
    lines = self_edit.train_lines(completion, PASSAGE, rule="lines", quirks=quirks)
    assert lines == [f"Karsk\n{text}" for text in (*texts, PASSAGE.text)]


@given(st.text(st.sampled_from("a1.- \n") | st.characters(), max_size=60))
def test_whatever_the_policy_writes_gives_texts_without_loose_ends(completion):
    texts = self_edit.split(completion, rule="lines", quirks="fixed")
    assert all(text and text == text.strip() for text in texts)
    reference = self_edit.split(completion, rule="lines", quirks="reference")
    # Elsewhere the quirks begin.
    plain = "---" not in completion and completion.splitlines() == completion.split(
        "\n"
    )
    if "Answer" not in completion and plain:
        assert texts == reference


@given(
    st.lists(st.sampled_from("--- - * • 1. 12) Question:1 ... ## \u200b".split(" ")))
    | st.lists(
        st.sampled_from(["Question 1:", "Answer:", "Answer 2:", "\x0c", "\u2028"])
    ),
    st.sampled_from(["\n", " ", "\n\n"]),
    st.sampled_from(self_edit.RULES),
)
def test_marks_say_nothing_until_a_word_joins_them(marks, between, rule):
    text = between.join(m for m in marks if m != "Question:1")
    if between == "\n":
        assert self_edit.refusal(text, rule=rule, quirks="fixed") == "blank"
    said = f"{text}\n- Ada"  # what comes before may be an announcement
    assert self_edit.refusal(said, rule=rule, quirks="fixed") is None
    if self_edit.refusal(text, rule=rule, quirks="reference") is not None:
        assert not text.strip()


# Sentences


@pytest.mark.parametrize(
    "text, want",
    [
        ("", []),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("rye bread is good. black tea too.", ["rye bread is good.", "black tea too."]),
        ("No stop", ["No stop"]),
        ("First line\nsecond line. Third.", ["First line", "second line.", "Third."]),
        ("J. S. Bach met Dr. Hall. Yes.", ["J. S. Bach met Dr. Hall.", "Yes."]),
        ("It cost 3.50 francs. Yes.", ["It cost 3.50 francs.", "Yes."]),
        ('He said "go." She went.', ['He said "go."', "She went."]),
        (
            "The U.S. Army (in No. 4). Why?!  So",
            ["The U.S. Army (in No. 4).", "Why?!", "So"],
        ),
        ("She said no. He left.", ["She said no.", "He left."]),
        ("Wait... Then it came.", ["Wait...", "Then it came."]),
        (". ! odd", [".", "!", "odd"]),
    ],
)
def test_sentences(text, want):
    assert self_edit.sentences(text) == want


@given(st.text(st.sampled_from("aB.?! \"')\n") | st.characters(), max_size=80))
def test_sentences_lose_nothing_but_white_space(text):
    cut = self_edit.sentences(text)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(s and s == s.strip() for s in cut)
