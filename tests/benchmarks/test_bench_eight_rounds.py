"""The benchmark of rounds in variants: its configs, its figures, what it reads."""

import importlib
import json

import pytest

from seal_jax import train
from seal_jax.experiment import kinds
from seal_jax.runtime import records

ITEMS = 12


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/eight_rounds.py, which finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("eight_rounds")


def summary(*means, lead=0.0):
    """A run of rounds with these means; items lie evenly around each.

    `lead` is added to the last row of every second item.
    """
    names = ["self_edits", *(f"round_{r}" for r in range(1, len(means)))]

    def value(i, r):
        # Odd and even items move by themselves in every round.
        own = 0.01 * (-1) ** (i + r) if i // 2 % 2 else -0.01 * (-1) ** (i + r)
        last = r == len(means) - 1
        return means[r] + own + (lead if last and i % 2 else 0.0)

    items = [
        {"item": f"p{i}", **{n: value(i, r) for r, n in enumerate(names)}}
        for i in range(ITEMS)
    ]
    ladder = [
        {"name": n, "mean": sum(item[n] for item in items) / ITEMS} for n in names
    ]
    lines = [
        {
            "trainings": 40,
            "kept": 4 - (r > 1),
            "entropy": 0.5 / r,
            "novelty": {"novel3": 0.5 / r, "jaccard3": 0.1 * r, "ttr": 0.7},
        }
        for r in range(1, len(means))
    ]
    return {"ladder": [{"name": "base", "mean": 0.1}, *ladder], "items": items} | {
        "rounds": lines
    }


# The variants


def test_each_variant_is_a_legal_config_that_differs_by_its_overrides_alone(bench):
    seal = bench.settings("rounds", {}, seed=3)
    assert (seal["scale"]["rounds"], seal["scale"]["passages"]) == (8, 24)
    assert seal["seed"] == seal["task"]["shuffle_seed"] == 3
    for name, overrides in bench.VARIANTS.items():
        values = bench.settings("rounds", overrides, seed=3)
        kinds.read(values)
        changed = {
            f"{group}.{key}": value
            for group, own in values.items()
            if isinstance(own, dict)
            for key, value in own.items()
            if value != seal[group][key]
        }
        assert changed == overrides, name


# Figures


def test_where_a_run_plateaus_and_where_a_rule_would_have_stopped_it(bench):
    means = (0.3, 0.5, 0.7, 0.7, 0.7, 0.7)
    made = bench.describe(summary(*means))
    assert list(made["means"]) == ["self_edits", *(f"round_{r}" for r in range(1, 6))]
    assert list(made["means"].values()) == pytest.approx(means)
    assert made["plateau"] == 2
    # Round 2 is the best; 4 ends the second round without a gain, 5 the third.
    want = {(2, 2.0): 4, (2, 3.0): 4, (3, 2.0): 5, (3, 3.0): 5}
    assert {(s["patience"], s["z"]): s["round"] for s in made["stops"]} == want
    assert made["gain"]["diff"] == pytest.approx(0.4)
    assert made["gain"]["z"] == pytest.approx(0.4 / made["gain"]["se"])
    assert (made["trainings"], made["kept"]) == (200, [4, 3, 3, 3, 3])
    assert made["novelty_first"] == {"novel3": 0.5, "jaccard3": 0.1}
    assert made["novelty_last"] == {"novel3": 0.1, "jaccard3": 0.5}


def test_a_run_that_rises_to_its_end_has_no_plateau(bench):
    made = bench.describe(summary(0.3, 0.5, 0.7, 0.9))
    assert made["plateau"] is None
    assert {stop["round"] for stop in made["stops"]} == {None}


def test_a_regression_ends_a_run_before_its_patience_does(bench):
    made = bench.describe(summary(0.3, 0.7, 0.5, 0.5, 0.5))
    assert {stop["round"] for stop in made["stops"]} == {2}


def test_variants_are_compared_item_by_item_whatever_their_order(bench):
    seal, other = summary(0.3, 0.5, 0.7), summary(0.3, 0.5, 0.7, lead=0.2)
    other["items"].reverse()
    made = bench.compare({"seal": seal, "k2": other})
    assert made["seal"]["over_seal"] is None
    # Of 12 differences six are 0.2 and six 0: mean 0.1, deviation sqrt(12 / 11) / 10.
    assert made["k2"]["over_seal"]["diff"] == pytest.approx(0.1)
    assert made["k2"]["over_seal"]["se"] == pytest.approx(0.1 / 11**0.5)
    alone = bench.compare({"k2": other})
    assert alone["k2"]["over_seal"] is None


def broken(change):
    made = summary(0.3, 0.5)
    change(made)
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(ladder=s["ladder"][:2]),
        lambda s: s.update(items=[]),
        lambda s: s["items"][3].pop("round_1"),
        lambda s: s["items"][3].update(item="p4"),
    ],
)
def test_a_summary_without_rounds_or_items_is_refused(bench, change):
    with pytest.raises(ValueError, match="must have self_edits, a round") as caught:
        bench.describe(broken(change))
    assert "\n" not in str(caught.value)


def test_runs_about_other_items_are_refused(bench):
    other = broken(lambda s: s["items"][0].update(item="elsewhere"))
    with pytest.raises(ValueError, match="2 held-out items are in one run alone"):
        bench.compare({"seal": summary(0.3, 0.5), "k2": other})


def test_the_tables(bench):
    made = bench.compare(
        {"seal": summary(0.3, 0.5, 0.7, 0.7, 0.7), "k2": summary(0.3, 0.6)}
    )
    means, when, costs = (
        [line.split() for line in part.splitlines()]
        for part in bench.table(made).split("\n\n")
    )
    assert means[0] == ["variant", "self_edits", "1", "2", "3", "4"]
    assert means[2] == ["seal", "0.300", "0.500", "0.700", "0.700", "0.700"]
    assert means[3] == ["k2", "0.300", "0.600", "-", "-", "-"]
    assert when[2][:6] == ["seal", "2", "4", "4", "-", "-"]
    assert when[2][6] == "+0.400" and when[2][-1] == "-"
    assert when[3][:2] == ["k2", "-"] and "-0.100" in when[3]
    assert costs[2] == ["seal", "160", "13", "0.500", "0.125", "0.100", "0.400"]


# The command


def finished(bench, workdir, name, made, *, seed=0):
    """Puts a finished run of a variant, of whatever seed, where seed 0's is sought."""
    values = bench.settings("rounds", bench.VARIANTS[name], seed=seed)
    folder = workdir / "seed_0" / name
    records.open_workdir(folder, values)
    records.write_json(folder / "summary.json", made)


def test_finished_runs_are_only_read_and_others_are_made(
    bench, monkeypatch, tmp_path, capsys
):
    finished(bench, tmp_path, "seal", summary(0.3, 0.5, 0.7))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    calls = []

    def run(values, workdir, *, say):
        calls.append((workdir.name, values["select"]["k_best"], values["seed"]))
        workdir.mkdir(parents=True)
        records.write_json(workdir / "summary.json", summary(0.3, 0.5, 0.8))
        say("done")

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(bench.common, "jax_device", lambda: "cpu-9")
    out = tmp_path / "new.json"
    flags = [f"--workdir={tmp_path}", "--variants", "seal", "k2", f"--out={out}"]
    assert bench.main(flags) == 0
    assert calls == [("k2", 2, 0)]
    assert all(p.read_bytes() == content for p, content in before.items())
    text = capsys.readouterr().out
    assert "k2: done" in text
    result = json.loads(text.splitlines()[-1])
    assert json.loads(out.read_text()) == result
    assert (result["benchmark"], result["items"]) == ("eight_rounds", ITEMS)
    assert list(result["runs"]["0"]) == ["seal", "k2"]
    assert result["runs"]["0"]["k2"]["over_seal"]["diff"] == pytest.approx(0.1)
    assert result["over_seeds"] == result["settings"] == {}


def test_several_seeds_have_a_table_over_them(bench, monkeypatch, tmp_path, capsys):
    """Their sizes by flags, and variants that were run for a seed alone."""
    seen = {}

    def run(values, workdir, *, say):
        seen[workdir.parent.name, workdir.name] = values
        seed = values["seed"]
        up = 0.1 if workdir.name == "dpo_accumulate" else 0.0
        made = summary(0.3, 0.5 + up, 0.9, 0.6 + 0.1 * seed + up)
        workdir.mkdir(parents=True)
        records.write_json(workdir / "summary.json", made)

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(bench.common, "jax_device", lambda: "cpu-9")
    flags = ["--variants", "seal", "dpo_accumulate", "--seeds", "0", "1", "2"]
    sizes = ["--rounds=3", "--passages=2", "--heldout=12"]
    sizes += ["--set", "imitate.prefer.rates.dpo=2e-3", "imitate.prefer.clip=0.5"]
    assert bench.main([f"--workdir={tmp_path}", *flags, *sizes]) == 0
    values = seen["seed_2", "dpo_accumulate"]
    assert values["imitate"]["rule"] == "dpo"
    assert values["imitate"]["data"] == "accumulate"
    prefer = values["imitate"]["prefer"]
    assert (prefer["rates"]["dpo"], prefer["clip"]) == (2e-3, 0.5)
    assert [values["scale"][key] for key in ("rounds", "passages")] == [3, 2]
    text = capsys.readouterr().out
    assert "seed 2\n\n" in text and "over seeds\n\n" in text
    made = json.loads(text.splitlines()[-1])["over_seeds"]
    assert made["seal"]["seeds"] == 3 and made["seal"]["over_seal"]["mean"] is None
    last = made["seal"]["last"]
    assert last["values"] == pytest.approx([0.6, 0.7, 0.8])
    # Student's: t(0.975, 2) is 4.3027, the standard error 0.1 / sqrt(3).
    assert last["mean"] == pytest.approx(0.7)
    assert last["half"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    # From round 2, which nobody chose, with its sign; round 3 is the last.
    assert made["seal"]["since"]["values"] == pytest.approx([-0.3, -0.2, -0.1])
    assert made["seal"]["plateaus"] == [2, 2, 2] and made["seal"]["rising"] == 0
    over = made["dpo_accumulate"]["over_seal"]
    assert over["values"] == pytest.approx([0.1] * 3)
    assert made["dpo_accumulate"]["first"]["mean"] == pytest.approx(0.6)


def test_seeds_without_a_plateau_are_counted_and_not_averaged(bench):
    runs = {
        str(seed): bench.compare({"seal": summary(*means)})
        for seed, means in enumerate([(0.3, 0.5, 0.7, 0.9), (0.3, 0.5, 0.7, 0.7)])
    }
    made = bench.round_seeds.over(runs)
    assert made["seal"]["plateaus"] == [None, 2] and made["seal"]["rising"] == 1
    assert made["seal"]["since"]["values"] == pytest.approx([0.2, 0.0])
    # Of two rounds the last is the early one.
    short = bench.round_seeds.over(
        {"0": bench.compare({"seal": summary(0.3, 0.5, 0.7)})}
    )
    assert short["seal"]["since"]["values"] == [None]
    by_round, _, rest = bench.round_seeds.table(made).partition("\n\n")
    assert rest.splitlines()[-1].split()[-2:] == ["2", "1"]
    # Student's: t(0.975, 1) is 12.7062, the standard error 0.1.
    assert by_round.splitlines()[-1].split()[-3:] == ["0.800", "±", "1.271"]


def test_a_fall_is_the_most_that_one_round_lost_and_never_less_than_nothing(bench):
    fell, rose = (0.3, 0.7, 0.5, 0.4), (0.3, 0.5, 0.6, 0.7)
    runs = {
        str(seed): bench.compare({"seal": summary(*means)})
        for seed, means in enumerate([fell, rose])
    }
    made = bench.round_seeds.over(runs)["seal"]
    # What was lost before any round is no round's: 0.3 is not looked at.
    assert made["fall"]["values"] == pytest.approx([0.2, 0.0])
    assert [m["mean"] for m in made["by_round"]] == pytest.approx(
        [0.3, 0.6, 0.55, 0.55]
    )
    assert made["by_round"][1]["values"] == pytest.approx([0.7, 0.5])
    assert made["entropy"]["values"] == pytest.approx([0.5 / 3] * 2)
    one = bench.round_seeds.over({"0": bench.compare({"seal": summary(0.3, 0.5)})})
    assert one["seal"]["fall"]["values"] == [None]


def test_a_finished_run_of_another_config_is_refused(bench, tmp_path, capsys):
    finished(bench, tmp_path, "seal", summary(0.3, 0.5), seed=1)
    assert bench.main([f"--workdir={tmp_path}", "--variants", "seal"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "holds a run of another config: seed=1 there, 0 here" in err


def test_an_unknown_variant_is_refused(bench, capsys):
    with pytest.raises(SystemExit):
        bench.parse_args(["--workdir=x", "--variants", "seals"])
    assert "invalid choice: 'seals'" in capsys.readouterr().err
