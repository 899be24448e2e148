"""Config files as frozen dataclasses: what builds, and what is refused and how."""

import dataclasses
import json
import pathlib

import absl.flags
import pytest
import tiny_model
from ml_collections import config_flags

from seal_jax.continual.settings import Continual
from seal_jax.deploy.settings import Deploy
from seal_jax.embedded import settings as pretrain_settings
from seal_jax.experiment import kinds
from seal_jax.lmsi.settings import Lmsi
from seal_jax.pooled.settings import Pooled
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules

CONFIGS = sorted(p.stem for p in (tiny_model.ROOT / "configs").glob("*.py"))


def changed(**changes):
    """The tiny experiment with some keys (`a__b`) changed."""
    return tiny_model.values("model", **changes)


def without(values, *path):
    head, *rest = path
    kept = {k: v for k, v in values.items() if rest or k != head}
    return kept | {head: without(kept[head], *rest)} if rest else kept


def test_every_config_file_is_checked_here():
    known = {name for name, _ in EXPERIMENTS}
    assert set(CONFIGS) == {*known, "arc", "tiny_pretrain"}


EXPERIMENTS = {
    ("squad", PassageRounds): (None, "", "rules", "small", "debug"),
    ("tiny", PassageRounds): (
        *(None, "", "rounds", "rewards", "rules", "debug"),
        *("self_rewarding", "dreams", "prompts"),
    ),
    ("tiny", OverSeeds): ("seeds",),
    ("own", PassageRounds): (None, "", "asked", "tiny"),
    ("continual", Continual): (None, "", "tiny", "debug"),
    ("deploy", Deploy): (None, "", "tiny", "debug"),
    ("lmsi", Lmsi): (None, "", "tiny", "debug"),
    ("squad_cpt", Pooled): (None, "", "tiny", "debug"),
}


@pytest.mark.parametrize(
    ("name", "cls", "arg"),
    [(*key, arg) for key, args in EXPERIMENTS.items() for arg in args],
)
def test_every_experiment_builds(name, cls, arg):
    values = tiny_model.load_config(name, arg).to_dict()
    exp = kinds.read(values)
    assert isinstance(exp, cls) and exp.turn_end == ""
    # Nothing was dropped, added or converted on the way, but integers to floats.
    assert tiny_model.present(exp) == values
    assert hash(exp) == hash(kinds.read(values))
    with pytest.raises(ValueError, match=f"configs/{name}.py:nope"):
        tiny_model.load_config(name, "nope")


@pytest.mark.parametrize("arg", [None, "", "tiny", "debug"])
def test_every_few_shot_experiment_builds(arg):
    values = tiny_model.load_config("arc", arg).to_dict()
    exp = kinds.read(values)
    assert isinstance(exp, FewShot)
    assert tiny_model.present(exp) == values
    assert hash(exp) == hash(kinds.read(values))
    assert exp.turn_end == ("" if arg in ("tiny", "debug") else "<|eot_id|>")


@pytest.mark.parametrize("name", ["squad", "tiny"])
def test_the_task_tells_the_kind_of_experiment(name):
    values = tiny_model.load_config(name, "debug").to_dict()
    exp = kinds.read(values)
    assert isinstance(exp, PassageRounds) and exp.turn_end == ""
    for task in (None, {}, {"name": 3}):
        with pytest.raises(ValueError, match=r"config\.task"):
            kinds.read(values | {"task": task})


FEW_SHOT_REFUSED = {
    "task.chat": ("llama4", ["task.chat='llama4'", "'llama3'"]),
    "task.attempts": (0, ["task.attempts=0", "at least 1"]),
    "scale.tasks": (0, ["scale.tasks=0", "at least 1"]),
    "edit.max_steps": (0, ["max_steps=0", "at least 1"]),
    "edit.min_learning_rate": (2.0, ["min_learning_rate=2.0", "in this order"]),
    "data.leave": ((0,), ["data.leave[0]=0", "at least 1"]),
    "inner.warmup": (-1, ["inner.warmup=-1", "at least 0"]),
    "inner.schedule": ("step", ["inner.schedule='step'", "'cosine'"]),
    "inner.padding": ("reference", ["inner.padding='reference'", "'padded'"]),
    "inner.pad_samples": (-2, ["inner.pad_samples=-2", "at least -1"]),
    "views.reorders": (-1, ["reorders=-1", "at least 0"]),
    "views.geometric": (("translate",), ["geometric='translate'", "flip0"]),
    "ladder": (("base",), ["ladder='base'", "'in_context'"]),
    "task.train": ("my.json", ["task.train='my.json'", "task.name='arc'"]),
    "task.name": ("grid", ["task.name='grid'", "'squad'", "'grids'"]),
    "inner.step_tokens": (384, ["inner.step_tokens=384", "use 768 or 0"]),
    "seed": (2**32, ["seed=4294967296", "4294967295"]),
}


@pytest.mark.parametrize("key", FEW_SHOT_REFUSED)
def test_a_few_shot_value_out_of_range_is_refused_by_name_and_rule(key):
    value, parts = FEW_SHOT_REFUSED[key]
    values = tiny_model.load_config("arc", "tiny")
    values.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError) as caught:
        kinds.read(values.to_dict())
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_padding_that_is_not_computed_is_refused():
    values = tiny_model.load_config("arc", "tiny")
    values.inner.padding, values.inner.pad_samples = "padded", 0
    with pytest.raises(ValueError, match=r"inner\.pad_samples=0 .* -1 for all"):
        kinds.read(values.to_dict())


def test_tasks_are_named_once():
    values = tiny_model.load_config("arc")
    values.task.train_ids = ("a", "b", "a")
    with pytest.raises(ValueError, match=r"task\.train_ids=.* name each once"):
        kinds.read(values.to_dict())


def test_every_edit_that_earned_it_is_kept_however_many_there_are():
    values = tiny_model.load_config("arc")
    values.scale.edits = 30
    exp = kinds.read(values.to_dict())
    assert exp.select.k_best == exp.scale.edits == 30


@pytest.mark.parametrize("arg", [None, "arc", "debug"])
def test_the_pretraining_config_builds(arg):
    values = tiny_model.load_config("tiny_pretrain", arg).to_dict()
    cfg = config_rules.build(pretrain_settings.PretrainConfig, values)
    assert dataclasses.asdict(cfg) == values


@pytest.mark.parametrize("name", ["squad", "tiny", "arc", "tiny_pretrain"])
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match=rf"configs/{name}.py:dbug: .*'debug'"):
        tiny_model.load_config(name, "dbug")


def test_one_seed_draws_the_generated_passages_as_well():
    values = tiny_model.load_config("tiny")
    values.seed = 7
    assert kinds.read(values.to_dict()).task.shuffle_seed == 7


def test_lists_and_whole_numbers_are_taken_for_tuples_and_floats():
    exp = config_rules.build(
        PassageRounds,
        changed(inner__lora__alpha=8) | {"ladder": ["base"]},
    )
    assert exp.ladder == ("base",)
    assert type(exp.inner.lora.alpha) is float


MISTYPED = [
    ("seed", "7", ["config.seed='7'", "int", "not str"]),
    ("seed", 7.0, ["config.seed=7.0", "int", "not float"]),
    ("seed", True, ["config.seed=True", "int", "not bool"]),
    ("ladder", "base", ["config.ladder='base'", "tuple"]),
    ("ladder", ("base", 3), ["config.ladder[1]=3", "str", "not int"]),
    ("inner", 3, ["config.inner=3", "group of keys"]),
    ("model", None, ["config.model=None", "group of keys"]),
]


@pytest.mark.parametrize(("key", "value", "parts"), MISTYPED)
def test_a_mistyped_value_is_refused_by_key(key, value, parts):
    refused(changed() | {key: value}, parts)


def refused(values, parts):
    with pytest.raises(ValueError) as caught:
        config_rules.build(PassageRounds, values)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_an_unknown_key_is_refused_with_the_nearest_one():
    values = changed()
    inner = values["inner"]
    refused(values | {"sead": 1}, ["config.sead: no such key", "config.seed?"])
    refused(
        values | {"inner": inner | {"lora": inner["lora"] | {"rnak": 3}}},
        ["config.inner.lora.rnak: no such key", "config.inner.lora.rank?"],
    )
    refused(values | {"zzz": 1}, ["config.zzz: no such key", "known:", "'seed'"])


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (("seed",), ["config: ", "'seed'", "missing"]),
        (("inner", "lora", "rank"), ["config.inner.lora: ", "'rank'", "missing"]),
        (("grade", "judge", "backoff_s"), ["config.grade.judge: ", "'backoff_s'"]),
    ],
)
def test_a_missing_key_is_refused_by_its_group(path, parts):
    refused(without(changed(), *path), parts)


OUT_OF_RANGE = {
    "seed": (-1, ["seed=-1", "at least 0"]),
    "model__dtype": ("float16", ["model.dtype='float16'", "'bfloat16'"]),
    "task__name": ("art", ["task.name='art'", "'squad', 'world'"]),
    "task__train_start": (-1, ["task.train_start=-1", "at least 0"]),
    "task__forward_share": (1.5, ["task.forward_share=1.5", "at most 1.0"]),
    "scale__rounds": (0, ["scale.rounds=0", "at least 1"]),
    "scale__heldout_seeds": (0, ["scale.heldout_seeds=0", "at least 1"]),
    "propose__max_tokens": (0, ["config.propose", "max_tokens=0", "at least 1"]),
    "propose__top_p": (0.0, ["config.propose", "top_p=0.0", "at most 1.0"]),
    "answer__temperature": (-0.5, ["config.answer.temperature=-0.5", "0 or at least"]),
    "answer__top_k": (-1, ["config.answer", "top_k=-1", "at least 0"]),
    "answer__batch": (0, ["config.answer", "batch=0", "at least 1"]),
    "edit__split": ("words", ["edit.split='words'", "'lines'"]),
    "edit__quirks": ("none", ["edit.quirks='none'", "'reference'"]),
    "inner__epochs": (0, ["inner.epochs=0", "at least 1"]),
    "inner__slots": (-1, ["inner.slots=-1", "at least 0"]),
    "inner__tile": (0, ["inner.tile=0", "at least 1"]),
    "inner__row_tokens": (66, ["inner.row_tokens=66", "inner.tile=4", "use 68"]),
    "inner__step_tokens": (97, ["inner.step_tokens=97", "row_tokens=96", "use 192"]),
    "inner__learning_rate": (0.0, ["inner.learning_rate=0.0", "at least 1e-"]),
    "inner__clip": (-1.0, ["inner.clip=-1.0", "at least 1e-"]),
    "inner__loss__mode": ("all", ["inner.loss.mode='all'", "'masked'"]),
    "inner__loss__pad_to": (1, ["inner.loss.pad_to=1", "at least 2"]),
    "inner__loss__pad_samples": (-2, ["inner.loss.pad_samples=-2", "use -1"]),
    "grade__name": ("gpt", ["grade.name='gpt'", "'recall'", "'judge'"]),
    "grade__threshold": (1.1, ["grade.threshold=1.1", "at most 1.0"]),
    "grade__max_missing": (-0.1, ["grade.max_missing=-0.1", "at most 1.0"]),
    "grade__judge__concurrency": (0, ["concurrency=0", "at least 1"]),
    "grade__judge__base_url": ("localhost", ["base_url='localhost'", "http://"]),
    "select__reward": ("f1", ["select.reward='f1'", "'log_likelihood'"]),
    "select__k_best": (0, ["select.k_best=0", "at least 1"]),
    "select__ties": ("last", ["select.ties='last'", "'shortest'"]),
    "select__threshold": ("half", ["select.threshold='half'", "'baseline'"]),
    "select__compare": (("grade", "f1"), ["select.compare='f1'", "'rubric'"]),
    "select__novelty_bonus": (-0.1, ["select.novelty_bonus=-0.1", "0 or at least"]),
    "select__max_copied": (1.5, ["select.max_copied=1.5", "at most 1.0"]),
    "select__max_overlap": (-1.0, ["select.max_overlap=-1.0", "at most 1.0"]),
    "label_free__rubric": ("llm", ["label_free.rubric='llm'", "'judge'"]),
    "label_free__questions": (0, ["label_free.questions=0", "at least 1"]),
    "label_free__quiz__prompt": ("exam", ["quiz.prompt='exam'", "'ask'"]),
    "stop__rule": ("never", ["stop.rule='never'", "'regression'"]),
    "stop__patience": (0, ["stop.patience=0", "at least 1"]),
    "stop__z": (0.0, ["stop.z=0.0", "at least 1e-"]),
    "imitate__start": ("first", ["imitate.start='first'", "'previous'"]),
    "imitate__data": ("all", ["imitate.data='all'", "'accumulate'"]),
    "imitate__epochs": (0, ["imitate.epochs=0", "at least 1"]),
    "imitate__learning_rate": (-1.0, ["imitate.learning_rate=-1.0", "at least 1e-"]),
    "imitate__length_multiple": (0, ["imitate.length_multiple=0", "at least 1"]),
    "ladder": (("base", "bases"), ["ladder='bases'", "'self_edits'"]),
    "inner__lora__targets": (("q_proj",) * 2, ["targets=('q_proj', 'q_p", "once"]),
    "imitate__lora__targets": (("q_proj",) * 2, ["targets=('q_proj', 'q_p", "once"]),
    "inner__lora__alpha": (0.0, ["inner.lora.alpha=0.0", "at least 0.001"]),
    "imitate__lora__alpha": (-8.0, ["imitate.lora.alpha=-8.0", "at least 0.001"]),
    "task__shuffle_seed": (2**32, ["seed=4294967296", "4294967295"]),
    "propose__min_tokens": (13, ["min_tokens=13", "at most max_tokens=12"]),
}


@pytest.mark.parametrize("key", OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_name_and_rule(key):
    value, parts = OUT_OF_RANGE[key]
    refused(changed(**{key: value}), parts)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"inner__learning_rate": float("nan")}, ["inner.learning_rate=nan"]),
        ({"inner__active": -1}, ["inner.active=-1", "at least 0"]),
        ({"select__threshold": "nan"}, ["select.threshold='nan'", "number"]),
        (
            {"imitate__batch": 10, "imitate__micro_batch": 4},
            ["imitate.batch=10", "multiple", "imitate.micro_batch=4"],
        ),
        (
            {"select__halving": ((1, 1),), "select__reward": "rubric"},
            ["select.halving", "select.reward='rubric'", "use ()"],
        ),
        (
            {"scale__edits": 2, "select__reward": "majority"},
            ["select.reward='majority'", "scale.edits=2", "3 or more"],
        ),
        (
            {
                "stop__rule": "plateau",
                "ladder": ("base",),
                "scale__heldout_passages": 5,
            },
            ["stop.rule='plateau'", "'self_edits'"],
        ),
        (
            {"stop__rule": "regression", "scale__heldout_passages": 4},
            ["stop.rule='regression'", "4 held-out items", "fewer than 5"],
        ),
        (
            {"select__halving": ((1, 1), (2, 1)), "scale__seeds": 3},
            ["ends with 2 seeds", "scale.seeds=3"],
        ),
        ({"select__k_best": 3}, ["select.k_best=3", "at most scale.edits=2", "use 2"]),
        ({"seed": 2**32}, ["config.seed=4294967296", "at most 4294967295"]),
        ({"seed": 2**63}, ["config.seed=9223372036854775808", "at most 4294967295"]),
        (
            {"select__threshold": "baseline", "select__reward": "log_likelihood"},
            ["select.threshold='baseline'", "select.reward='log_likelihood'"],
        ),
    ],
)
def test_a_bad_combination_is_refused(changes, parts):
    refused(changed(**changes), parts)


@pytest.mark.parametrize("threshold", ["none", "baseline", "0.5", "-3"])
def test_thresholds_that_build(threshold):
    values = changed(select__reward="grade", select__threshold=threshold)
    exp = config_rules.build(PassageRounds, values)
    assert exp.select.threshold == threshold


def test_a_directory_stands_for_itself(tmp_path: pathlib.Path):
    exp = config_rules.build(PassageRounds, tiny_model.values(tmp_path))
    assert exp.model.path == str(tmp_path)


# Groups that may be left out


@pytest.mark.parametrize("path", [("grade", "judge"), ("label_free",)])
def test_a_group_that_nothing_uses_may_be_left_out(path):
    whole = config_rules.build(PassageRounds, changed())
    exp = config_rules.build(PassageRounds, without(changed(), *path))
    assert exp.grade.judge is None or exp.label_free is None
    # One that is there and not used changes nothing else.
    assert tiny_model.present(exp) == without(tiny_model.present(whole), *path)


@pytest.mark.parametrize(
    ("changes", "path", "parts"),
    [
        (
            {"grade__name": "judge"},
            ("grade", "judge"),
            ["grade.name='judge' needs the group config.grade.judge; see configs"],
        ),
        (
            {"select__reward": "self_asked"},
            ("label_free",),
            ["select.reward='self_asked' needs the group config.label_free; see confi"],
        ),
        (
            {"select__compare": ("majority", "rubric"), "scale__edits": 3},
            ("label_free",),
            ["select.compare='rubric' needs the group config.label_free"],
        ),
        (
            {"select__reward": "rubric", "label_free__rubric": "judge"},
            ("grade", "judge"),
            ["label_free.rubric='judge' needs the group config.grade.judge"],
        ),
        # What is not a whole group has to be said.
        ({}, ("stop",), ["keys ['stop'] are missing"]),
        ({}, ("grade", "judge", "temperature"), ["keys ['temperature'] are missing"]),
    ],
)
def test_a_group_that_is_used_is_asked_for_with_the_reason(changes, path, parts):
    refused(without(changed(**changes), *path), parts)


def test_configs_leave_out_what_they_do_not_use():
    for name, arg in (("tiny", None), ("tiny", "rounds"), ("continual", "tiny")):
        values = tiny_model.load_config(name, arg).to_dict()
        assert "judge" not in values["grade"]
    for name in ("continual", "squad_cpt"):
        values = tiny_model.load_config(name).to_dict()
        assert "label_free" not in values and "teach" not in values["inner"]


# On the command line


def from_flags(*flags):
    values = absl.flags.FlagValues()
    argv = ["train", f"--config={tiny_model.ROOT}/configs/squad.py", *flags]
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    values(argv)
    return kinds.read(holder.value.to_dict())


LOADED = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@LOADED  # So config_flags reads a config file.
@pytest.mark.parametrize(("text", "value"), [("None", None), ("0.5", 0.5), ("1", 1.0)])
def test_the_judges_temperature_can_be_left_out(text, value):
    exp = from_flags(f"--config.grade.judge.temperature={text}")
    assert exp.grade.judge.temperature == value
    assert from_flags().grade.judge.temperature == 0.0


@LOADED
@pytest.mark.parametrize("text", ["none", "nan", "-1", "1e308", "5e-324", "[]", "''"])
def test_another_temperature_of_the_judge_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"grade\.judge\.temperature=.* must be"):
        from_flags(f"--config.grade.judge.temperature={text}")


# Keys of earlier versions


@dataclasses.dataclass(frozen=True)
class Leaf:
    new: int


@dataclasses.dataclass(frozen=True)
class Root:
    leaf: Leaf


def test_a_key_of_an_earlier_version_is_refused_with_the_new_one():
    rows = {"leaf.old": "use leaf.new", "gone": "leave it out"}

    def build(values):
        return config_rules.build(Root, values, renamed=rows)

    with pytest.raises(ValueError) as caught:
        build({"leaf": {"old": 1}})
    assert str(caught.value) == (
        "config.leaf.old is of an earlier version: use leaf.new"
    )
    with pytest.raises(ValueError, match=r"config\.gone is of an earlier version: l"):
        build({"leaf": {"new": 1}, "gone": 2})
    # At another place it is a key like any other.
    with pytest.raises(ValueError, match=r"config\.old: no such key"):
        build({"old": 1})
    assert build({"leaf": {"new": 1}}) == Root(Leaf(1))


@pytest.mark.parametrize("place", config_rules.RENAMED)
def test_every_renamed_key_is_gone_from_the_configs(place):
    for name in CONFIGS:
        flat = tiny_model.load_config(name).to_dict()
        for part in place.split("."):
            flat = flat.get(part) if isinstance(flat, dict) else None
        assert flat is None, name


# `config.json` of runs before there were packages: every group is written out.
OLD = sorted((pathlib.Path(__file__).parent / "old_configs").glob("*.json"))


def plain(values):
    """As JSON has it: no tuples."""
    return json.loads(json.dumps(values))


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.stem)
def test_a_config_of_an_earlier_version_builds_or_is_told_the_new_key(path):
    values = json.loads(path.read_text(encoding="utf-8"))
    try:
        exp = kinds.read(values)
    except ValueError as error:
        assert "is of an earlier version: " in str(error)
    else:
        # Every value has kept its place and its meaning.
        for place, value in config_rules.ADDED.items():
            *groups, key = place.split(".")
            there = tiny_model.present(exp)
            if groups and groups[0] not in there:
                continue  # A group that this kind does not have.
            above = values[groups[0]] if groups else values
            if key in (there[groups[0]] if groups else there):
                above.setdefault(key, plain(value))
        assert plain(tiny_model.present(exp)) == values


def test_old_configs_are_of_every_kind():
    values = [json.loads(path.read_text(encoding="utf-8")) for path in OLD]
    wanted = {PassageRounds, FewShot, Continual, Pooled}
    assert {type(kinds.read(v)) for v in values} == wanted
