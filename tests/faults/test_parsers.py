"""Every parser of what files hold: a value, or one line that says what is wrong.

Values are good ones with one place changed into any JSON, and any JSON at all.
"""

import copy
import dataclasses
import json
import math

import golden_models
import malformed_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal_jax.continual import files as continual_files
from seal_jax.experiment import workdirs
from seal_jax.models import hf_config, peft
from seal_jax.report import read_rewards, read_seeds, read_texts, reference
from seal_jax.report.commands import select as select_command
from seal_jax.rounds import select
from seal_jax.runtime import files, reading
from seal_jax.tasks import squad
from seal_jax.tasks.arc import puzzles
from seal_jax.training import plan
from seal_jax.training.settings import MASKED, LossConfig, PlanConfig

NUMBERS = (0, -1, 1, 10**400, 5e-324, 1e308, math.nan, math.inf, -math.inf, 0.5)
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers(-3, 300)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(("\ud800", "a\0b", "Paris", "1e-6"))
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
    ),
    max_leaves=6,
)
GRID = [[0, 1], [2, 3]]
PAIR = {"input": GRID, "output": GRID}
QUESTION = {
    "rep": 0,
    "baseline_correct": False,
    "adapter_correct": True,
    "adapter_answer": "x",
}
COMPLETION = {
    "text": "a b c d",
    "questions": [QUESTION],
    "stats": {"adapter_mean": 0.5, "baseline_mean": 0.25},
}
RESULT = {
    "articles": [
        {
            "title": "t",
            "context": "c d e f",
            "prompt": "p",
            "completions": [COMPLETION, COMPLETION],
        }
    ]
}
ROW = {"title": "T_x", "context": "c", "question": "q", "answers": {"text": ["a"]}}
PASSAGE = {
    "title": "t",
    "context": "c",
    "questions": [{"question": "q", "answer": "a"}],
}
MATRIX = {
    "mean_over_sequences": [[0.5, 0.5], [0.5, 0], [0.25, 0.5]],
    "std_over_sequences": [[0.1, 0.1], [0.1, 0], [0.1, 0.1]],
    "n_sequences": 2,
    "n_datapoints": 2,
}
EDIT = {
    "round": 1,
    "passage_id": "p",
    "passage": "c",
    "text": "t",
    "rewards": [0.5, 0.25],
    "answers": [[{"score": 1.0}], [{"score": 0.0}]],
    "measured": {"grade": [0.5, 0.25]},
}


def config(name):
    text = (golden_models.GOLDEN / name / "model" / "config.json").read_text()
    return json.loads(text)


def from_file(read, name):
    """A reader of a file, as a parser of its value."""

    def parse(value, folder):
        path = folder / name
        text = json.dumps(value) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return read(path if path.suffix == ".json" else folder)

    return parse


def arch(value, _):
    cfg = hf_config.parse(value, dtype="float32")
    for field in ("vocab", "width", "layers", "heads", "head_dim", "ff"):
        assert type(getattr(cfg, field)) is int and getattr(cfg, field) > 0
    assert math.isfinite(cfg.rope_theta) and 0 < cfg.norm_eps <= 1
    return cfg


def adapter_config(value, folder):
    (folder / peft.CONFIG).write_text(json.dumps(value))
    config = peft._read_config(folder)
    assert 0 < config["lora_alpha"] < math.inf and config["r"] > 0


def ranking(value, _):
    if reference.is_results(value):
        select_command.sft_rows(value, select.Rule(**RULE))


RULE = dict.fromkeys(f.name for f in dataclasses.fields(select.Rule))
RULE |= {"k_best": 1, "ties": "first", "bonus": 0.0}

PARSERS = {
    "qwen2": (config("qwen2"), arch),
    "llama": (config("llama"), arch),
    "adapter": (
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]},
        adapter_config,
    ),
    "passages": ([PASSAGE], lambda value, _: squad.parse(value, "x.json")),
    "rows": ([ROW, ROW], lambda value, _: squad.parse(squad.group(value), "x")),
    "tasks": (
        {"a": {"train": [PAIR], "test": [PAIR]}},
        from_file(lambda path: puzzles.load(path, split=""), "tasks.json"),
    ),
    "task rows": (
        [{"id": "a", "train": [PAIR], "test": [PAIR]}],
        lambda value, _: puzzles.parse_rows(value, "x"),
    ),
    "matrix": (MATRIX, lambda value, _: continual_files.parse("x.json", value)),
    "selection": (RESULT, ranking),
    "result": (RESULT, from_file(reference.read, "r.json")),
    "result's texts": (RESULT, from_file(read_texts.read, "r.json")),
    "result's seeds": (RESULT, from_file(read_seeds.read, "r.json")),
    "result's rewards": (RESULT, from_file(read_rewards.read, "r.json")),
    "edits": (EDIT, from_file(read_texts.read, "edits.jsonl")),
    "edits' seeds": (EDIT, from_file(read_seeds.read, "edits.jsonl")),
    "edits' rewards": (EDIT, from_file(read_rewards.read, "edits.jsonl")),
}
# What iterates over its value: a data set always gives an iterable.
ROWS = ("rows", "task rows")


@st.composite
def damaged(draw, good):
    """`good` with one place changed, or gone."""
    where = draw(st.sampled_from(list(malformed_files.places(good))))
    if where and draw(st.integers(0, 5)) == 0:
        return malformed_files.changed(good, where, lambda _: malformed_files.GONE)
    new = draw(JSON)
    return malformed_files.changed(good, where, lambda _: new)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_what_is_whole(name, tmp_path):
    good, parse = PARSERS[name]
    parse(copy.deepcopy(good), tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_gives_a_value_or_one_line(name, tmp_path_factory):
    good, parse = PARSERS[name]
    folder = tmp_path_factory.mktemp("parser")

    @settings(max_examples=60)
    @given(damaged(good) | JSON)
    def check(value):
        if name in ROWS and not isinstance(value, list):
            return
        if name in ("qwen2", "llama") and not isinstance(value, dict):
            return  # `hf.read_config` has refused it
        try:
            parse(value, folder)
        except ValueError as error:
            assert not isinstance(error, UnicodeError), error
            message = str(error)
            assert "\n" not in message and len(message) < 900
            assert "must" in message or "; " in message, message

    check()


@settings(max_examples=100)
@given(JSON)
def test_json_comes_back_or_is_refused(value):
    text = json.dumps(value)
    try:
        back = reading.decode_json(text)
    except ValueError as error:
        assert "digits" in str(error)  # nothing else is wrong with it
        return
    assert json.dumps(back) == text


@given(st.binary(max_size=40))
def test_bytes_are_json_or_refused(data):
    try:
        reading.decode_json(data)
    except ValueError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=30))
def test_names_stay_in_their_folder(name):
    if files.is_hub_name(name, owner=False):
        assert ".." not in name and not name.startswith("/") and name.isascii()
        assert name.count("/") <= 1 and name.isprintable()


SIZES = st.sampled_from((-1, 0, 1, 2, 8, 16, 24, 64, 10**12))


@settings(max_examples=150)
@given(st.data())
def test_the_planner_lays_out_every_step_or_says_why_not(data):
    """Whatever sizes and jobs: an error in one line, or each step once, in order."""
    draw = data.draw
    try:
        cfg = PlanConfig(*(draw(SIZES) for _ in range(5)))
        jobs = [
            plan.Job(
                lines=tuple((1,) * draw(st.integers(0, 30)) for _ in range(lines)),
                seed=(i,),
                epochs=draw(st.integers(0, 3)),
                learning_rate=1e-3,
                clip=1.0,
                loss=LossConfig(MASKED, 2, -1),
                batch=draw(st.integers(0, 3)),
                warmup=draw(st.integers(-1, 2)),
            )
            for i, lines in enumerate(draw(st.lists(st.integers(0, 4), max_size=4)))
        ]
        needs = [plan.needs(job, cfg) for job in jobs]
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    order: dict[int, list[int]] = {}
    for step in plan.schedule(needs, cfg):
        assert step  # it goes on
        for placed in step:
            order.setdefault(placed.job, []).append(placed.step)
    assert order == {i: list(range(job.total)) for i, job in enumerate(jobs)}


@pytest.mark.parametrize("value", [[], 3, None, "x", {"ladder": 3}, {"ladder": [3]}])
def test_a_summary_that_is_none_is_said_so(value, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match="was altered; delete it"):
        workdirs.finished_summary(tmp_path)
