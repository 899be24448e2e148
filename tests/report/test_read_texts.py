"""Self-edits read from workdirs and files, and the novelty of the released ones."""

import json

import pytest
import text_runs
from text_runs import PASSAGE, row

from seal_jax.analysis import novelty, novelty_measures
from seal_jax.report import read_texts
from seal_jax.runtime import files


@pytest.fixture
def workdir(tmp_path):
    return text_runs.write_run(tmp_path / "run")


def test_a_workdir_is_read_by_round_and_arm(workdir):
    got = read_texts.read(workdir)
    key = ("T", PASSAGE)
    want = [
        novelty.Edits("run round 1", {key: ("a b c", "x y z")}),
        novelty.Edits("run round 2", {key: ("x y z",)}),
    ]
    assert got == want
    assert read_texts.read(workdir / "edits.jsonl", name="run") == want
    files.write_jsonl(workdir / "heldout.jsonl", [row("x", arm="round_1")])
    held = novelty.Edits("run held-out round_1", {key: ("x",)})
    assert read_texts.read(workdir) == [*want, held]


def test_a_round_of_several_prompts_is_read_by_prompt(tmp_path):
    other = {"passage": "Q r s", "title": "U"}
    rows = [
        row("1", round=1),
        row("2", round=1, **other, prompt="Say.\nU\nQ r s\n\nSo:\n"),
        row("3", round=1, prompt=f"Tell.\nT\n{PASSAGE}\n\nSo:\n"),
    ]
    files.write_jsonl(tmp_path / "e.jsonl", rows)
    assert read_texts.read(tmp_path / "e.jsonl") == [
        novelty.Edits(
            "e round 1 prompt 1",
            {("T", PASSAGE): ("1",), ("U", "Q r s"): ("2",)},
            "Say. ... So:",
        ),
        novelty.Edits("e round 1 prompt 2", {("T", PASSAGE): ("3",)}, "Tell. ... So:"),
    ]


def test_seal_files_are_read_in_both_layouts(tmp_path):
    record = {"title": "T", "context": PASSAGE, "prompt": "p"}
    generated, ranked = tmp_path / "generated.json", tmp_path / "ranked.json"
    generated.write_text(json.dumps([{**record, "completions": ["a", ""]}]))
    scored = {**record, "completions": [{"text": "a"}, {"text": ""}]}
    ranked.write_text(json.dumps({"articles": [scored]}))
    for path in (generated, ranked):
        want = novelty.Edits(path.stem, {("T", PASSAGE): ("a", "")})
        assert read_texts.read(path) == [want]


# Released self-edits, all passages of each file: words, novel3, cov3, jaccard3,
# distinct2, zlib, as an independent count over the authors' files found them. Its 3.49
# is 3.485 here.
RELEASED = {
    "base_val": "153 .796 .215 .080 .626 3.14",
    "iter1_val": "140 .744 .275 .148 .533 3.60",
    "iter2_val": "134 .606 .411 .272 .437 4.23",
    "gpt4_1_val": "303 .950 .131 .050 .690 3.05",
    "base_val_prompt-long": "393 .876 .246 .058 .583 3.49",
    "iter1_val_prompt-long": "431 .855 .322 .095 .500 4.01",
    "iter2_val_prompt-long": "432 .847 .338 .112 .465 4.27",
    "base_val_prompt-rewrite": "434 .812 .377 .084 .400 5.00",
    "iter1_val_prompt-rewrite": "520 .737 .492 .173 .238 7.84",
    "iter2_val_prompt-rewrite": "518 .636 .632 .310 .164 10.27",
    "base_val_prompt-self-qa": "264 .733 .433 .132 .457 4.17",
    "iter1_val_prompt-self-qa": "258 .695 .494 .216 .367 4.91",
    "iter2_val_prompt-self-qa": "307 .700 .550 .291 .310 5.73",
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_recompute(seal_data, name):
    folder = seal_data / "knowledge-incorporation/data/synthetic_data/eval"
    found = sorted(folder.rglob(f"{name}.json"))
    if not found:
        pytest.skip(f"SEAL_DATA has no {name}.json; add it to check its row")
    (edits,) = read_texts.read(found[0])
    got = novelty.summarize(edits)
    for key, want in zip(
        novelty_measures.MEASURES, RELEASED[name].split(), strict=True
    ):
        mean, se = got[key]
        assert mean is not None and se is not None and 0 < se < mean / 10
        digits = novelty_measures.MEASURES[key]
        # Builds of zlib, and ways to join the texts, differ by about as much.
        slack = 0.01 if key == "zlib" else 1e-9
        assert abs(mean - float(want)) <= 0.5 * 10**-digits + slack, key


def test_the_released_empty_self_edits_have_no_novelty(seal_data):
    path = "knowledge-incorporation/data/synthetic_data/eval/naive_val.json"
    (edits,) = read_texts.read(seal_data / path)
    got = novelty.summarize(edits)
    assert got.pop("words") == got.pop("cov3") == (0.0, 0.0)
    assert set(got.values()) == {(None, None)}
