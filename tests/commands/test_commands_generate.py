"""`seal-jax generate`: the texts of the API, from files and in conversation."""

import json

import pytest

from seal_jax.api.models import Model
from seal_jax.commands import generate

PROMPTS = ["Ada", "The mill is", "Who?\nA:"]
TOKENS = "--max-tokens=6"


@pytest.fixture(scope="module")
def base(model):
    return model.generate(PROMPTS, max_tokens=6)


@pytest.fixture(scope="module")
def under(model, adapters):
    """[adapter][prompt]."""
    return model.generate([PROMPTS] * 3, adapters, max_tokens=6)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(p.replace("\n", "\\n") + "\n" for p in PROMPTS))
    return path


def leaf_of(adapter):
    return adapter.tree["layers_0"]["q_proj"]["a"].tobytes()


def lines(texts):
    return "".join(f"{text}\n" for text in texts)


def test_prompts_of_a_file_and_of_the_command_line(folder, prompts, base, ended):
    status, out, _ = ended(
        generate.main, "--model", folder, TOKENS, "--prompts", prompts
    )
    assert (status, out) == (0, lines(base))
    escaped = [p.replace("\n", "\\n") for p in PROMPTS]
    assert ended(generate.main, *escaped, "--model", folder, TOKENS)[1] == out


def test_adapters_one_for_each_prompt_or_each_prompt_under_all(
    folder, saved, prompts, under, ended, rows, tmp_path
):
    file = tmp_path / "out.jsonl"
    command = [generate.main, "--model", folder, TOKENS, "--prompts", prompts]
    command += ["--adapters", saved, "--out", file]
    assert ended(*command)[:2] == (0, f"{file}: 3 texts\n")
    assert rows(file) == [
        {"prompt": PROMPTS[i], "adapter": i, "text": under[i][i]} for i in range(3)
    ]
    assert ended(*command, "--each")[1] == f"{file}: 9 texts\n"
    assert [row["text"] for row in rows(file)] == [t for texts in under for t in texts]
    assert [row["adapter"] for row in rows(file)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_conversation_survives_slips(
    folder, saved, adapters, ended, typed, monkeypatch
):
    numbers = {leaf_of(one): i for i, one in enumerate(adapters)}

    def write(self, prompts, under, **drawing):
        number = None if under is None else numbers[leaf_of(under)]
        return [f"{prompts[0]!r} {number} {drawing['temperature']}"]

    monkeypatch.setattr(Model, "generate", write)
    typed(
        *("Ada", ":adapter 1", "The mill is", ":adapter 9", ":adpater 1", ""),
        *(":temperature hot", ":adapter none", ":temperature 0.5", "Who?\\nA:"),
        *(":quit", "never read"),
    )
    status, out, err = ended(
        generate.main, "--model", folder, "--adapters", saved, TOKENS
    )
    want = ["'Ada' 0 0.0", "'The mill is' 1 0.0", "'Who?\\nA:' None 0.5"]
    assert (status, out) == (0, lines(want))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert [e.split(";")[0] for e in errors] == [
        "error: adapters[9]: there are 3",
        "error: ':adpater 1' is no command",
        "error: temperature='hot' must be a number, at least 0.0 and at most 100.0",
    ]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--max-tokens=0"], ["--max-tokens=0", "at least 1"]),
        (["--tempreature=1"], ["did you mean --temperature?"]),
        (["--adapters", "/no/such"], ["/no/such: no such folder"]),
        (["--prompts", "/no/such"], ["/no/such: no such file"]),
        (["--out", "/no/such/file"], ["--out /no/such/file: must be a file in a"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(flags, parts, folder, refused):
    refused(generate.main, "Ada", "--model", folder, *flags, parts=parts)


def test_numbers_that_do_not_go_together(folder, saved, refused, tmp_path):
    command = (generate.main, "--model", folder, "--adapters", saved)
    parts = ["--adapters are 3 and prompts 2", "--each"]
    refused(*command, "Ada", "Boris", parts=parts)
    refused(*command, "--out", tmp_path / "o", parts=["needs prompts"])


def test_the_model_of_a_workdir_is_its_policy_or_its_base(folder, tmp_path, capsys):
    from seal_jax.commands import shared

    assert shared.model_path(folder) == folder
    run = tmp_path / "run"
    run.mkdir()
    (run / "journal.jsonl").write_text("")
    (run / "config.json").write_text(json.dumps({"model": {"path": folder}}))
    assert shared.model_path(str(run)) == folder
    assert "no policy yet" in capsys.readouterr().err
    (run / "policy").mkdir()
    assert shared.model_path(str(run)) == str(run / "policy")
