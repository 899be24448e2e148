"""A class of the user's own as a task: its passages, and what else it says."""

import own_code
import pytest
import tiny_model

from seal_jax import train
from seal_jax.experiment import kinds, one_run
from seal_jax.forecast import work
from seal_jax.rewards import judge
from seal_jax.rounds import gold
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.tasks import knowledge, knowledge_setup, own, sources
from seal_jax.tasks.base import Edit, Reading
from seal_jax.tasks.passage import Passage
from seal_jax.tasks.settings import TaskConfig

CODE = """
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage

WORDS = ("alcove", "bothy", "corbel", "dado")

class Plain:
    @staticmethod
    def items(task, side):
        words = WORDS[:3] if side == "train" else WORDS[3:]
        return [Passage.of(w, f"{w} {task.shuffle_seed}", [("Q?", w)]) for w in words]

class Bare(Plain):
    @staticmethod
    def items(task, side):
        return [Passage.of(w, f"about {w}") for w in WORDS] if side == "train" else []

class Words(Knowledge):
    items = staticmethod(Plain.items)

    def propose_prompt(self, item):
        return f"Use {item.title}:"

    def score(self, answered):
        return [float(item.title in a) for item, answers in answered for a in answers]

class Given(Words):
    # Gives and raises what the test wants, by the name of the method.
    def gives(self, name): return given[name](self)
    def propose_prompt(self, item): return self.gives("propose_prompt")
    def read(self, item, text): return self.gives("read")
    def lines(self, item, edit): return self.gives("lines")
    def prompts(self, item): return self.gives("prompts")
    def score(self, answered): return self.gives("score")

given = {}

class Twice:
    @staticmethod
    def items(task, side): return [Passage.of("a", "b")] * 2

class Odd:
    @staticmethod
    def items(task, side): return ["text"]

class Blank:
    @staticmethod
    def items(task, side): return [Passage.of("a", " ")]

class Number:
    @staticmethod
    def items(task, side): return [Passage.of(5, "text")]

class NoText:
    @staticmethod
    def items(task, side): return [Passage.of("z", "t"), Passage.of("a", None)]

class NumberAnswer:
    @staticmethod
    def items(task, side):
        return [Passage.of("a", "b", [("Who?", "Ada"), ("When?", 1204)])]

class NoQuestion:
    @staticmethod
    def items(task, side): return [Passage.of("a", "b", [("", "")])]

class Pairs:
    @staticmethod
    def items(task, side): return [Passage("i", "a", "b", [("Who?", "Ada")])]

class NoId:
    @staticmethod
    def items(task, side): return [Passage(7, "a", "b", ())]

class None_:
    @staticmethod
    def items(task, side): return None

class Fails:
    @staticmethod
    def items(task, side): return [][1]

class Uneven:
    @staticmethod
    def items(task, side):
        import dataclasses
        made = Passage.of("a", "text", [("Q?", "a"), ("P?", "b")])
        return [dataclasses.replace(made, rephrased=made.questions[:1])]

class NoItems: pass
class Sided:
    @staticmethod
    def items(side): return []
def function(task, side): return []
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    own_code.stand_in(tmp_path, monkeypatch)
    own_code.write(tmp_path, "own_words", CODE)


def values(name, **changes):
    return tiny_model.values(
        "model",
        task__name=f"own_words:{name}",
        task__forward_share=0.0,
        scale__rounds=1,
        scale__heldout_passages=1,
        ladder=("base", "self_edits"),
        **changes,
    )


def task(name):
    return TaskConfig(f"own_words:{name}", "", "", 1, "", "", 0, 7, 0.0, None)


def test_its_passages_are_taken_from_the_start_on():
    found = sources.passages(task("Plain"), sources.TRAIN, count=2)
    assert [(p.title, p.text) for p in found] == [
        ("bothy", "bothy 7"),
        ("corbel", "corbel 7"),
    ]
    assert sources.heldout(task("Bare"), count=1, asked=False) == []
    with pytest.raises(ValueError, match="must be at most the 0 of own_words:Bare"):
        sources.heldout(task("Bare"), count=1)
    exp = kinds.read(values("Plain"))
    train, heldout = gold.load(exp)
    assert [p.title for p in (*train[0], *heldout)] == ["alcove", "bothy", "dado"]
    exp = kinds.read(values("Bare", select__reward="rubric"))
    assert gold.load(exp)[1] == []


def test_items_are_asked_for_once_a_side_at_a_start(monkeypatch, tmp_path):
    """Their code may take minutes; the count of adapters needs no more of it."""
    exp, asked, given = kinds.read(values("Plain")), [], own.items

    def items(task, side):
        asked.append(side)
        return given(task, side)

    def told(exp, values, workdir, *, say, counted):
        return {"adapters": counted(*gold.load(exp))}

    monkeypatch.setattr(own, "items", items)
    monkeypatch.setattr(one_run, "run", told)
    summary = train.run(values("Plain"), tmp_path, say=print)
    assert asked == [sources.TRAIN, sources.HELDOUT]
    phases = work.phases(exp, work.text(exp))
    assert summary["adapters"] == sum(phase.adapters for phase in phases)


def test_sequences_and_probes_are_made_of_them():
    (first,) = sources.sequences(task("Plain"), group="train", count=1, length=2)
    assert [p.title for p in first] == ["bothy", "corbel"]
    assert sources.probes(task("Plain"), count=1)[0].title == "dado"


def test_a_class_of_the_packages_kind_is_the_task():
    exp = kinds.read(values("Words"))
    assert knowledge_setup.kind_of(exp.task).__name__ == "Words"
    plain = kinds.read(values("Plain")).task
    assert knowledge_setup.kind_of(plain) is knowledge.Knowledge
    made = knowledge_setup.kind_of(exp.task)(
        exp,
        None,
        "",
        "{title} {question}",
        knowledge.unconnected,
        knowledge.unconnected,
    )
    item = Passage.of("dado", "x", [("Q?", "y")])
    assert made.propose_prompt(item) == "Use dado:"
    assert made.in_view().score([(item, ["a dado"]), (item, ["none"])]) == [1.0, 0.0]


ITEM = Passage.of("dado", "x", [("Q?", "y"), ("R?", "z")])
CALLS = {
    "propose_prompt": (ITEM,),
    "read": (ITEM, "a text"),
    "lines": (ITEM, Edit(0, 0, "", "a text")),
    "prompts": (ITEM,),
    "score": ([(ITEM, ["a", "b"])],),
}


def call(name, gives):
    """What a method of the user's own class is taken for that gives `gives(self)`."""
    kind = knowledge_setup.kind_of(task("Given"))
    import own_words  # pyright: ignore[reportMissingImports]

    own_words.given[name] = gives
    nobody = knowledge.unconnected
    made = kind(None, None, "", "", nobody, nobody)
    return getattr(made.in_view(), name)(*CALLS[name])


@pytest.mark.parametrize(
    ("name", "gives", "message"),
    [
        ("score", [7.5, 0], "score gave 7.5, and must give a number from 0 to 1"),
        ("score", [0, float("nan")], "score gave nan, and must give"),
        ("score", ["1", 1], "score gave '1', and must give"),
        ("score", [1.0], "score gave 1 scores of 2 answers; give one for each"),
        ("score", 1.0, "score must return a list of numbers, not 1.0"),
        ("prompts", ["Q?"], "prompts gave 1 texts about 2 questions"),
        ("prompts", "Q?", "prompts must return a list of texts, not 'Q?'"),
        ("lines", ["a", None], "lines must return a list of texts, not None"),
        ("read", None, "read must return a Reading"),
        ("propose_prompt", 3, "propose_prompt must return a text, not 3"),
    ],
)
def test_what_its_methods_give_is_looked_at(name, gives, message):
    with pytest.raises(ValueError) as caught:
        call(name, lambda self: gives)
    said = str(caught.value)
    assert said.startswith(f"task.name='own_words:Given': {message}")
    assert said.endswith(("change it", "give one for each", "in one list"))


def test_what_its_methods_give_is_taken():
    assert call("score", lambda self: (s for s in (True, None))) == [1.0, None]
    assert call("prompts", lambda self: ("a", "b")) == ["a", "b"]
    assert call("lines", lambda self: ()) == ()
    assert call("read", lambda self: Reading("no")).refused == "no"
    assert call("propose_prompt", lambda self: "a") == "a"


@pytest.mark.parametrize("name", CALLS)
def test_what_its_methods_raise_ends_in_one_line(name):
    with pytest.raises(ValueError) as caught:
        call(name, lambda self: {}["a\nb"])
    said = str(caught.value)
    assert said.startswith("task.name='own_words:Given': own_words line ")
    assert "KeyError" in said and "\n" not in said


def test_what_is_told_already_is_told_once():
    def refuses(self):
        raise judge.JudgeError("the endpoint refuses")

    with pytest.raises(judge.JudgeError, match=r"^the endpoint refuses$"):
        call("score", refuses)
    with pytest.raises(ValueError) as first:
        call("lines", lambda self: {}[1])
    with pytest.raises(ValueError) as second:
        call("score", lambda self: self.lines(*CALLS["lines"]))
    assert str(second.value) == str(first.value)


WRONG = {
    "Twice": "number 1 has the id",
    "Odd": "number 0 is 'text', and must be a Passage",
    "Blank": "number 0: text=' ' must be text that is not blank; correct it",
    "Number": "number 0: title=5 must be text that is not blank",
    "NoText": "number 1: text=None must be text",
    "NumberAnswer": "number 0: questions[1].answer=1204 must be text",
    "NoQuestion": "number 0: questions[0].question='' must be text",
    "Pairs": "number 0: questions[0] is ('Who?', 'Ada'), and must be a Question",
    "Uneven": "number 0: rephrased has 1 questions, and questions 2; give one for each",
    "NoId": "number 0: id=7 must be text",
    "None_": "must return a list of passages, not None",
    "Fails": "own_words line 81: IndexError: list index out of range",
}


@pytest.mark.parametrize("name", WRONG)
def test_passages_that_cannot_be_are_refused_in_one_line(name):
    with pytest.raises(ValueError) as caught:
        own.items(task(name), "train")
    said = str(caught.value)
    assert WRONG[name] in said and f"own_words:{name}" in said and "\n" not in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_words:NoItems", "must have a static method items(task, side)"),
        ("own_words:Sided", "items must take (task, side) and takes (side)"),
        ("own_words:function", "must be a class, and is <function"),
        ("own_words:Word", "did you mean Words?"),
        ("passage", "must be one of"),
    ],
)
def test_a_config_with_another_class_is_refused_when_it_is_read(name, message):
    given = values("Plain")
    given["task"]["name"] = name
    with pytest.raises(ValueError) as caught:
        kinds.read(given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_rounds_over_seeds_take_none():
    config = tiny_model.load_config("tiny", "seeds").to_dict()
    assert isinstance(kinds.read(config), OverSeeds)
    config["task"] |= {"name": "own_words:Plain", "forward_share": 0.0}
    with pytest.raises(
        ValueError, match=r"task\.name='own_words:Plain' has no form on"
    ):
        kinds.read(config)


@pytest.mark.parametrize("name", ["mine:Plain", "squad", "world"])
def test_a_task_of_passages_does_not_go_with_a_config_of_few_shot_tasks(name):
    config = tiny_model.load_config("arc", "tiny").to_dict()
    config["task"]["name"] = name
    told = rf"task\.name='{name}' is of passages, and config\.data of few-shot tasks"
    with pytest.raises(ValueError, match=told) as caught:
        kinds.read(config)
    assert "\n" not in str(caught.value)
