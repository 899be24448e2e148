"""Forms in which judges reply, as their makers and servers document or leak them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal_jax.rewards import judge, replies, rubric

YES = """\
yes|Yes.| YES⏎|**Yes**|__yes__|`yes`|"Yes."|“Yes”|'yes'|(yes)|[yes]|Yes!|yes.⏎⏎yes
Answer: yes|**Answer:** Yes|Final answer: **yes**|Verdict - yes|### Verdict⏎yes|> yes
The answer is yes.|So the final answer is: yes|My verdict is yes.|I would say yes.
It's a yes.|I’d say yes.|Hmm, yes.|Therefore, yes.|1. Yes|- yes|* Yes|- Yes, it does.
Yes. There is no contradiction.|Yes, there is no contradiction|Yes - no contradiction.
Yes: it has no errors and no omissions.|Yes – no doubt.
Yes—nothing contradicts it; no error
Yes⏎⏎The student's answer adds details, no matter.|Yes it is right.|Yes the answer fits
yes because it says no less than the reference|Yes, no one would object.
Yes, No. 5 is named.
The answer gives everything. There is no contradiction. Yes.
The student says no while the reference says no.⏎⏎**Yes**
Is the student's answer correct? Yes.|Yes or no? Yes.|"yes" or "no": yes|yes/no: yes
Correct answer: no. Student's answer: no. Verdict: yes|Expected: no. Got: no. So yes.
{"correct_answer": "no", "verdict": "yes"}
Reference answer: no. Student's answer: no. Verdict: yes|Student's answer correct: yes
{"answer": "yes"}|{"student_answer": "no", "verdict": "yes"}
```json⏎{"correct": "yes"}⏎```
<answer>yes</answer>|\\boxed{yes}|$\\boxed{\\text{Yes}}$|yes</s>|Yes<¦eot_id¦>|✅ Yes
Certainly yes|of course, yes|matches the gold answer => yes|it fits → Yes|Rating: yes
Yes. I did not say no.|Yes. The student wrote "no", as the reference does."""

NO = """\
no|No.|NO!|**No**|No, the student is wrong.|No⏎The reference says yes.|no no no
No; not so
Answer: no|The answer is no.|No. The student said yes, but the reference says otherwise.
No the answer lacks the year|No because it contradicts it|No, it is not a clear yes
The reference answer is yes. The student disagrees. No.|❌ No|- No|1) no
No - it differs.|Is it correct? No|Yes/no? No.
{"verdict": "no", "reason": "yes would be wrong"}
<answer>No</answer>
Student: yes. Reference: no. Correct: no|\\boxed{no}|No – the year is missing
no<¦im_end¦>"""

NEITHER = """\
|  ⏎|correct|Correct.|yesterday|nothing, not, know|Perhaps.|It depends|yes and no
Yes and no.
yes or no|Yes/No|no or yes|Yes. No.|No. Yes.|yes, no|No. Wait, actually yes.|yes⏎no
There is no contradiction.|no contradiction|No contradictions found.|No errors.
No doubt.
The student's answer has no mistakes, so it is correct.|no one|No-one knows|no longer
noon
No. 5 is the number.|I would not say yes.|not yes|The student says: no.|eyes|nope
Yes would be wrong
The student says no and the reference says no|{"student_answer": "no"}|true|1|Y
Correct answer: No. Student's answer: No. They match.|The correct answer is: no
Expected: no. Got: no.|**Correct answer:** no
maybe yes"""


def forms(table, verdict):
    """One or several to a line; ⏎ is a line break and ¦ a bar."""
    found = [form for line in table.split("\n") for form in line.split("|")]
    return [(form.replace("⏎", "\n").replace("¦", "|"), verdict) for form in found]


CASES = [*forms(YES, True), *forms(NO, False), *forms(NEITHER, None)]


@pytest.mark.parametrize("reply, verdict", CASES)
def test_a_verdict_has_a_clause_to_itself(reply, verdict):
    assert replies.verdict(reply) is verdict
    assert judge.parse(reply) is verdict


THOUGHTS = [
    ("<think>", "</think>"),
    ("", "</think>"),
    ("<think>\n", "\n</think>\n\n"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("", "</thinking>"),
    ('<thinking depth="2">', "</thinking >"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<|channel>thought\n", "<channel|>"),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|channel|>final <|constrain|>x<|message|>",
    ),
    ("analysisWe ask: ", "assistantfinal"),
]
THOUGHT = st.text("yesno .,\n<>/") | st.sampled_from(
    ["yes", "No.", "yes</think>no", "<think>no</think>", "Yes, or no? yes\n\nno\n"]
)
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


@SETTINGS
@given(st.sampled_from(THOUGHTS), THOUGHT, st.sampled_from(CASES))
def test_what_was_thought_is_no_verdict(tags, thought, case):
    reply, verdict = case
    assert replies.verdict(f"{tags[0]}{thought}{tags[1]}{reply}") is verdict


@SETTINGS
@given(st.sampled_from([t for t in THOUGHTS if t[0]]), st.sampled_from(["yes", "no."]))
def test_a_thought_without_an_end_is_no_verdict(tags, thought):
    assert replies.verdict(tags[0] + thought) is None
    assert rubric.parse(tags[0] + "5 5 5 5") is None
    assert rubric.parse(f"{tags[0]}1 1 1 1{tags[1]}5 5 4 5") == (5, 5, 4, 5)


@SETTINGS
@given(st.text() | st.text("yesno YESNO<>/|think.,:\"'{}-\n"))
def test_any_text_is_read(reply):
    verdict = replies.verdict(reply)
    if verdict is not None:
        assert ("yes" if verdict else "no") in reply.lower()
    if not any(word in reply.lower() for word in ("yes", "no")):
        assert verdict is None


@pytest.mark.parametrize(
    "unit",
    ["<", "\n", " ", "no. ", "yes ", "<|channel|>", "-", "\\", "</think>", "<think"],
)
def test_long_replies_come_to_their_end(unit):
    # A pattern that tries again from every character would take hours.
    want = {"no. ": False, "yes ": True}.get(unit)
    assert replies.verdict(unit * (200_000 // len(unit))) is want


# Chat completions


def completion(content, ended="stop", **fields):
    message = {"role": "assistant", "content": content, **fields}
    return json.dumps({"choices": [{"message": message, "finish_reason": ended}]})


def text_part(text):
    return {"type": "text", "text": text}


THINKING = {"type": "thinking", "thinking": [text_part("no")]}


@pytest.mark.parametrize(
    "data, text",
    [
        (completion("yes"), "yes"),
        (completion(""), ""),
        (completion("yes", reasoning="no"), "yes"),
        (completion("yes", reasoning_content=None, refusal=None, tool_calls=[]), "yes"),
        (completion([text_part("ye"), text_part("s")]), "yes"),
        (completion([THINKING, text_part("yes")]), "yes"),
        (completion([{"type": "reasoning", "text": "no"}, text_part("yes")]), "yes"),
        (completion([{"type": "output_text", "text": "yes"}]), "yes"),
        (completion([{"text": "yes"}, "."]), "yes."),
        (completion([text_part("yes"), {"type": "image_url"}]), "yes"),
        (completion("yes", ended="length"), "yes"),
        (json.dumps({"choices": [{"message": {"content": "yes"}}]}), "yes"),
    ],
)
def test_the_text_of_a_completion(data, text):
    assert replies.text(data) == replies.text(data.encode()) == text


@SETTINGS
@given(st.lists(st.text()), st.integers(0, 3))
def test_parts_are_joined(texts, thoughts):
    parts = [text_part(text) for text in texts] or [text_part("")]
    assert replies.text(completion(parts)) == "".join(texts)
    if "".join(texts).strip():
        assert replies.text(completion([THINKING] * thoughts + parts)) == "".join(texts)


LONG = (
    "Okay, the student says yes. No, let me see what the reference has to say about it"
)


@pytest.mark.parametrize(
    "data, message",
    [
        (completion(None, reasoning="yes"), "reasoning without an answer"),
        (completion(None, reasoning_content="yes"), "reasoning without an answer"),
        (completion("", thinking="yes", ended="length"), r"finish_reason='length'"),
        (completion("\n", reasoning_details=[{"text": "yes"}]), "reasoning without"),
        (completion([THINKING]), "reasoning without an answer"),
        (completion([{"type": "reasoning", "text": "no"}, text_part("")]), "reasoning"),
        (completion(None, ended="length"), "raise the limit of tokens"),
        (completion(None, refusal="I can't"), 'a refusal, "I can\'t"; use another'),
        (completion(None, ended="content_filter"), "content filter"),
        (completion(LONG, ended="length"), "a reply cut at the limit of tokens, 'Okay"),
    ],
)
def test_a_completion_without_an_answer_says_why(data, message):
    with pytest.raises(replies.NoAnswerError, match=message) as caught:
        replies.text(data)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "text", "type", "finish_reason"]
            ),
            inner,
        )
    ),
)


@SETTINGS
@given(JSON.map(json.dumps) | JSON.map(completion) | st.text())
def test_anything_else_is_no_completion(data):
    try:
        assert isinstance(replies.text(data), str)
    except replies.NoAnswerError:
        pass
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data", [b"\xff", b"[" * 100_000, b'{"choices": [{"message": "content"}]}']
)
def test_bytes_that_are_no_completion(data):
    with pytest.raises(ValueError, match="Error in b"):
        replies.text(data)
