"""Adapters in memory and on disk: choosing, stacking, writing, reading."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import GOLDEN, assert_one_line, assert_same_trees

import seal_jax as seal
from seal_jax.api import adapters as api_adapters
from seal_jax.api.adapters import Adapters, Base
from seal_jax.models import decoder, lora, peft

ARCH = decoder.Arch("qwen2", 264, 32, 2, 4, 2, 8, 64, 256, qkv_bias=True, tied=True)
BASE = Base(ARCH, "somewhere", "mark")


def made(count=5, *, base=BASE, rank=3, targets=("q_proj", "v_proj"), seed=0):
    rng = np.random.default_rng(seed)
    like = lora.empty(
        base.arch, targets=targets, rank=rank, adapters=count, dtype=base.arch.dtype
    )
    tree = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), like)
    finite = np.ones(count, bool)
    return Adapters(tree, base, np.arange(count, dtype=np.float32), finite)


def first(adapters):
    return adapters.tree["layers_0"]["q_proj"]["a"]


def test_a_number_gives_one_adapter_and_all_else_a_stack():
    five = made()
    assert (len(five), five.rank, five.targets) == (5, 3, ("q_proj", "v_proj"))
    assert "5 adapters of rank 3" in repr(five)
    one = five[3]
    np.testing.assert_array_equal(first(one), first(five)[3])
    assert (one.loss, one.finite, one.rank) == (3.0, True, 3)
    np.testing.assert_array_equal(first(five[-1]), first(five)[4])
    mask = np.array([True, False, True, False, False])
    for index, want in [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -2), [4, 2, 0]),
        ([2, 0], [2, 0]),
        (np.array([1, 1]), [1, 1]),
        (mask, [0, 2]),
        ([], []),
    ]:
        some = five[index]
        assert isinstance(some, Adapters) and some.losses.tolist() == want
        np.testing.assert_array_equal(first(some), first(five)[want])
    assert [a.loss for a in five] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("index", [5, -6, [0, 5], "a", 1.0])
def test_what_names_no_adapter_is_refused_in_one_line(index):
    with pytest.raises((IndexError, TypeError)) as caught:
        made()[index]
    assert_one_line(caught, "adapters[")


def test_a_stack_holds_its_parts_in_order():
    five, two = made(), made(2, seed=1)
    both = seal.stack([two, five[4], five[:1]])
    want = [*first(two), first(five)[4], first(five)[0]]
    np.testing.assert_array_equal(first(both), want)
    assert both.losses.tolist() == [0, 1, 4, 0]
    np.testing.assert_array_equal(first(seal.stack(five)), first(five))


OTHER_SHAPES = Base(dataclasses.replace(ARCH, layers=1), "small", "mark")
OTHER_WEIGHTS = Base(ARCH, "tuned", "another")


@pytest.mark.parametrize(
    ("part", "parts"),
    [
        (made(1, rank=4), ["stack[1]", "rank is 4", "3", "train them alike"]),
        (made(1, targets=("q_proj",)), ["stack[1]", "targets is ('q_proj',)"]),
        (made(1, base=OTHER_SHAPES), ["stack[1]", "'small' of 1 layers"]),
        (made(1, base=OTHER_WEIGHTS), ["stack[1]", "'tuned'", "not those of"]),
        (3, ["stack=", "must be a list of adapters"]),
    ],
)
def test_parts_that_do_not_go_together_are_refused(part, parts):
    with pytest.raises(ValueError) as caught:
        seal.stack([made(), part])
    assert_one_line(caught, *parts)


@pytest.mark.parametrize(("parts", "told"), [([], "give some"), (None, "a list")])
def test_nothing_is_no_stack(parts, told):
    with pytest.raises(ValueError) as caught:
        seal.stack(parts)
    assert_one_line(caught, told)


# Files


def test_what_was_written_is_read_bit_for_bit(model, adapters, tmp_path):
    paths = adapters.save_peft(tmp_path / "out")
    assert [p.name for p in paths] == ["000", "001", "002", "003", "004", "005"]
    for given in (tmp_path / "out", paths, [tmp_path / "out"], str(tmp_path / "out")):
        assert_same_trees(seal.load_peft(given, model=model).tree, adapters.tree)
    # By the name in the files; of other adapters of it nothing is known.
    alone = seal.load_peft(paths[2])
    assert_same_trees(alone.tree, adapters[2:3].tree)
    assert np.isnan(alone.losses).all() and alone.finite.all()
    config = json.loads((paths[0] / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    assert config["base_model_name_or_path"] == model.name


def test_one_adapter_is_a_peft_directory(adapters, tmp_path):
    path = adapters[1].save_peft(tmp_path / "one")
    assert path == tmp_path / "one"
    delta, alpha = peft.load(path, adapters.base.arch)
    assert alpha == 4
    assert_same_trees(jax.tree.map(np.asarray, delta), adapters[1].tree)


def test_bfloat16_is_read_as_it_was(tmp_path):
    base = Base(dataclasses.replace(ARCH, dtype="bfloat16"), "x", None)
    some = made(2, base=base)
    some.save_peft(tmp_path / "out")
    back = api_adapters.stack(
        [seal.load_peft(tmp_path / "out", model=_Named(base))]  # pyright: ignore
    )
    assert first(back).dtype == jnp.bfloat16
    assert_same_trees(back.tree, some.tree)


@dataclasses.dataclass
class _Named:
    """As much of a model as reading asks for."""

    base: Base


def test_pefts_own_files_are_read_with_their_scale(model):
    path = GOLDEN / "qwen2" / "peft_default"
    delta, alpha = peft.load(path, model.base.arch)
    (read,) = seal.load_peft(path, model=model)
    assert alpha / read.rank != 1
    want = lora.scaled(delta, alpha / read.rank)
    assert_same_trees(read.tree, jax.tree.map(np.asarray, want))


def test_a_folder_is_replaced_whole_and_others_are_left_alone(tmp_path):
    made(5).save_peft(tmp_path / "out")
    made(2, seed=1).save_peft(tmp_path / "out")
    back = seal.load_peft(tmp_path / "out", model=_Named(BASE))  # pyright: ignore
    np.testing.assert_array_equal(first(back), first(made(2, seed=1)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError) as caught:
        made(2).save_peft(tmp_path / "mine")
    assert_one_line(caught, tmp_path / "mine", "choose another path")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_what_is_not_finite_is_not_written(tmp_path):
    bad = dataclasses.replace(made(3), finite=np.array([True, False, True]))
    for save in (bad.save_peft, bad[1].save_peft):
        with pytest.raises(ValueError) as caught:
            save(tmp_path / "out")
        assert_one_line(caught, tmp_path / "out", "finite", "learning_rate")
    assert not (tmp_path / "out").exists()
    bad[bad.finite].save_peft(tmp_path / "out")


def test_none_at_all_are_not_written(tmp_path):
    with pytest.raises(ValueError) as caught:
        made(2)[2:].save_peft(tmp_path / "out")
    assert_one_line(caught, tmp_path / "out", "no adapters to write")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("index", ["x", 1.0, None, True, np.array([[0, 1], [1, 0]])])
def test_what_is_no_index_is_told(index):
    with pytest.raises(TypeError) as caught:
        made(3)[index]
    assert_one_line(caught, "adapters[", "must be a number, a slice, a list of numbers")


def test_one_adapter_says_what_it_is():
    assert repr(made(2)[1]) == "<an adapter of rank 3 on q_proj, v_proj, loss 1>"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda p: [], ["dirs=[]"]),
        (lambda p: "", ["dirs=''", "none of them empty"]),
        (lambda p: [p, None], ["dirs=[", "must be paths"]),
        (lambda p: p / "gone", ["gone: no such folder"]),
        (lambda p: p, ["holds no adapter_config.json"]),
        (lambda p: made(1)[0].save_peft(p / "a"), ["a: its base", "model="]),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(make, parts, tmp_path):
    with pytest.raises((ValueError, OSError)) as caught:
        seal.load_peft(make(tmp_path))
    assert_one_line(caught, *parts)


def test_adapters_of_another_shape_are_refused(model, tmp_path):
    base = Base(dataclasses.replace(ARCH, width=64), "wide", None)
    made(1, base=base)[0].save_peft(tmp_path / "a")
    with pytest.raises(ValueError) as caught:
        seal.load_peft(tmp_path / "a", model=model)
    assert_one_line(caught, "has shape", "the model it was trained on")


@pytest.mark.parametrize("names", [["../a"], "a", [1], None])
def test_an_index_leads_nowhere_else(names, tmp_path):
    made(1).save_peft(tmp_path / "out")
    (tmp_path / "out" / "adapters.json").write_text(json.dumps({"adapters": names}))
    with pytest.raises(ValueError) as caught:
        seal.load_peft(tmp_path / "out")
    assert_one_line(caught, "adapters.json", "delete it")
