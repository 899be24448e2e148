"""Logs from elsewhere: what counts as context and turns, and what is refused where."""

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from seal_jax.deploy import logs

SYSTEM = {"role": "system", "content": "Ada cooks rye bread.\nBoris plays cello."}
ASKED = {"role": "user", "content": "What does Ada cook?"}
SAID = {"role": "assistant", "content": "rye bread"}


def read(tmp_path, *rows):
    path = tmp_path / "chats.jsonl"
    texts = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(texts) + "\n")
    return logs.read(path)


def one(tmp_path, *messages, **more):
    (((session,),),) = read(tmp_path, {"messages": [*messages], **more})
    return session


def test_what_the_system_says_is_the_context_and_replies_are_turns(tmp_path):
    session = one(tmp_path, SYSTEM, ASKED, SAID)
    assert session.context == SYSTEM["content"]
    assert session.turns == (("What does Ada cook?", "rye bread"),)
    assert session.title == "Ada cooks rye bread."
    assert one(tmp_path, SYSTEM, ASKED, SAID, title=" Karsk ").title == "Karsk"


def test_tools_tell_context_and_calls_say_nothing(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    told = {"role": "tool", "content": "Ada: rye bread", "tool_call_id": "1"}
    session = one(tmp_path, SYSTEM, ASKED, call, told, SAID)
    assert session.context == f"{SYSTEM['content']}\n\nAda: rye bread"
    assert session.turns == (("What does Ada cook?", "rye bread"),)


def test_of_parts_the_texts_count(tmp_path):
    parts = [
        {"type": "text", "text": "What does"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "Ada cook?"},
    ]
    session = one(tmp_path, SYSTEM, {"role": "user", "content": parts}, SAID)
    assert session.turns == (("What does\nAda cook?", "rye bread"),)


def test_a_first_message_that_ends_in_a_question_is_context_before_it(tmp_path):
    text = "Ada cooks rye bread. Boris plays cello.\n\nWhat does Ada cook?"
    more = [{"role": "user", "content": "And Boris?"}, {**SAID, "content": "cello"}]
    session = one(tmp_path, {"role": "user", "content": text}, SAID, *more)
    assert session.context == "Ada cooks rye bread. Boris plays cello."
    assert session.turns == (
        ("What does Ada cook?", "rye bread"),
        ("And Boris?", "cello"),
    )


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("Ada cooks. She plays.", "  What\n  does she cook?"),
        ("Ada cooks. She plays.", " Where does\nAda live?"),
        ("Ada: cook\nBoris: cello", "\nWhat does Ada do?"),
        ("Name Ada\nFood bread", "\n\nAnd what\nis it?"),
        ("Bread is made by\nAda.", "\nMade by Dr. Quill\nor not?"),
        ("She plays. Why? Who knows.", ' "Does she\n\tplay?"'),
    ],
)
def test_a_question_that_is_wrapped_is_one(told, asked):
    assert logs._divided(told + asked) == (told, asked.strip())


def test_a_question_alone_has_no_context():
    assert logs._divided("Where does\nAda live?") == ("", "Where does\nAda live?")


def test_a_first_message_without_a_question_is_context_and_its_reply_no_turn(tmp_path):
    first = {"role": "user", "content": "Ada cooks rye bread."}
    noted = {"role": "assistant", "content": "Noted."}
    session = one(tmp_path, first, noted, ASKED, SAID)
    assert session.context == "Ada cooks rye bread."
    assert session.turns == (("What does Ada cook?", "rye bread"),)


def test_messages_of_one_side_in_a_row_are_one_and_greetings_none(tmp_path):
    greeting = {"role": "assistant", "content": "Hello!"}
    more = {"role": "user", "content": "Tell me."}
    session = one(tmp_path, SYSTEM, greeting, ASKED, more, SAID, SAID, ASKED)
    asked = "What does Ada cook?\nTell me."
    assert session.turns == ((asked, "rye bread\nrye bread"),)


def days(streams):
    return [[[s.context for s in day] for day in own] for own in streams]


def own(context, **more):
    return {"context": context, "turns": [{"q": "Q?", "a": "A"}], **more}


def test_streams_and_numbered_days_with_gaps(tmp_path):
    streams = read(
        tmp_path,
        own("a", stream="x", day=7),
        own("b", user=3, day=5),
        own("c", stream="x", day=5),
        "",
        own("d", stream="x", day=7),
    )
    assert days(streams) == [[["c"], [], ["a", "d"]], [["b"], [], []]]
    assert [own[0][0].stream for own in streams] == ["x", "3"]


def test_dates_are_the_days_that_occur(tmp_path):
    streams = read(
        tmp_path,
        own("a", date="2026-11-30T10:00:00Z"),
        own("b", date="2026-11-30T23:59:00Z"),
        own("c", date="2026-12-24"),
        own("d", date="2026-1-2"),
        own("e", date="2026/01/2 08:00"),
    )
    assert days(streams) == [[["d", "e"], ["a", "b"], ["c"]]]


def test_without_days_a_stream_is_one_list(tmp_path):
    assert days(read(tmp_path, own("a"), own("b"), own("c", user="u"))) == [
        [["a", "b"]],
        [["c"]],
    ]


def test_a_run_reads_what_a_run_wrote_each_arm_for_itself(tmp_path):
    session = one(tmp_path, SYSTEM, ASKED, SAID)
    rows = logs.rows([session._replace(stream="0", day=1)], arm="quiz")
    rows += logs.rows([session._replace(stream="0", day=1)], arm="edits")
    streams = read(tmp_path, *rows)
    assert [own[0][0].stream for own in streams] == ["quiz/0", "edits/0"]
    for own_ in streams:
        ((again,),) = own_
        assert (again.title, again.context, again.turns) == session[3:]


BAD = {
    "{": "must be one JSON entry",
    "[]": "must be an object with messages",
    '{"messages": {}}': "messages must be a list",
    '{"messages": ["x"]}': "message 0: role=None must be one of system",
    '{"messages": [{"role": "me", "content": "x"}]}': "role='me' must be one of",
    '{"messages": [{"role": "user", "content": 3}]}': "content must be text or a list",
    '{"messages": [{"role": "user", "content": [3]}]}': "a part must be text or",
    '{"messages": [{"role": "user", "content": [{"type": "text"}]}]}': "must have one",
    '{"messages": null}': "must have messages, or context",
    json.dumps({"messages": [SYSTEM, ASKED, SAID], "day": "1"}): "day='1' must be a",
    json.dumps({"messages": [SYSTEM, ASKED, SAID], "day": True}): "day=True must be a",
    json.dumps({"messages": [SYSTEM, ASKED, SAID], "date": 3}): "date=3 must be text",
    json.dumps(own("x", date="5.1.2026")): "must begin with year, month and day",
    json.dumps(own("x", date="2026-13-01")): "must begin with year, month and day",
    json.dumps({"messages": [SYSTEM, ASKED, SAID], "user": []}): r"user=\[\] must be",
    json.dumps({"messages": [SYSTEM, ASKED, SAID], "title": 1}): "title must be text",
    json.dumps({"messages": [SYSTEM, ASKED, SAID], "day": 1}): "must tell its day as",
    json.dumps({"context": "x"}): "must have messages, or context",
    json.dumps({"context": "x", "turns": [{"q": "x"}]}): "a turn must be an object",
    json.dumps({"context": "\ud800", "turns": []}): "without lone surrogates",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named_with_its_file(tmp_path, line):
    with pytest.raises(ValueError, match=rf"chats\.jsonl line 3: .*{BAD[line]}") as e:
        read(tmp_path, own("fine"), "", line)
    assert "\n" not in str(e.value)


def test_of_many_bad_lines_the_first_few_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"line 2: .*; nor can be read: line 4, 5$"):
        read(tmp_path, own("fine"), "[]", own("fine"), "{", "3")
    with pytest.raises(ValueError, match=r"line 1: .*: line 2, 3, 4, 5, 6 and 3 more$"):
        read(tmp_path, *["[]"] * 9)


BARE = {
    "no message": {"messages": []},
    "no context": {"messages": [ASKED, SAID]},
    "no reply": {"messages": [SYSTEM, ASKED]},
    "a blank context": own(" "),
    "no turn": {"context": "x", "turns": []},
    "a blank answer": {"context": "x", "turns": [{"q": "Who?", "a": " "}]},
}


@pytest.mark.parametrize("name", BARE)
def test_a_session_with_nothing_to_learn_is_left_out_and_counted(tmp_path, name):
    fine = [own("a", user="u"), own("b", user="v")]
    assert read(tmp_path, fine[0], BARE[name], fine[1]) == read(tmp_path, *fine[:1]) + [
        [[s._replace(where=s.where.replace("line 1", "line 3")) for s in day]]
        for ((*day,),) in read(tmp_path, fine[1])
    ]
    read(tmp_path, fine[0], BARE[name], BARE[name])
    assert logs.load(tmp_path / "chats.jsonl").bare == 2


def test_what_other_programs_write_otherwise_is_read_alike(tmp_path):
    loud = [{**m, "role": m["role"].title()} for m in (SYSTEM, ASKED, SAID)]
    plain = one(tmp_path, SYSTEM, ASKED, SAID)
    assert one(tmp_path, *loud) == plain
    assert one(tmp_path, *loud, stream=" ", user="u").stream == "u"
    (((session,),),) = read(tmp_path, {**own("x"), "messages": None})
    assert session.context == "x"
    assert one(tmp_path, SYSTEM, ASKED, SAID, title=None) == plain
    wide = {"role": "user", "content": "エイダはパンを焼く。\n\n何を焼く？"}
    session = one(tmp_path, wide, SAID)
    assert session.context == "エイダはパンを焼く。"
    assert session.turns == (("何を焼く？", "rye bread"),)


def test_no_session_and_days_far_apart_are_refused(tmp_path):
    for lines in ([""], [BARE["no reply"]]):
        with pytest.raises(ValueError, match=r"chats\.jsonl: must hold a session"):
            read(tmp_path, *lines)
    with pytest.raises(ValueError, match="days run from 1 to 20261130"):
        read(tmp_path, own("a", day=1), own("b", day=20261130))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "q", "a", "user"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@hypothesis.given(
    st.dictionaries(
        st.sampled_from(["messages", "context", "turns", "day", "date", "title"]), JSON
    )
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_whatever_a_line_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, row):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(row) + "\n")
    try:
        logs.read(path)
    except ValueError as error:
        starts = (f"{path} line 1: ", f"{path}: must hold a session")
        assert str(error).startswith(starts) and "\n" not in str(error)
