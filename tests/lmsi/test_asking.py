"""Questions as a task of the rounds: rows that are learned from chains."""

import tiny_model

from seal_jax.experiment import kinds
from seal_jax.lmsi import asking
from seal_jax.lmsi.settings import Lmsi
from seal_jax.tasks import chains
from seal_jax.tasks.chains import Chain, Question


def task():
    exp = kinds.read(tiny_model.load_config("lmsi", "debug").to_dict())
    assert isinstance(exp, Lmsi)
    return asking.make(exp)


def test_every_chain_is_a_row_in_every_format_and_prompts_are_made_once(monkeypatch):
    one, made = task(), []

    def counted(template, exemplars, question, form):
        made.append(form)
        return f"{form}: {question}"

    monkeypatch.setattr(chains, "prompt", counted)
    kept = [Chain("a", "1"), Chain("", "2"), Chain("b", "1")]
    rows = one.rows(7, Question("q?"), kept)
    assert [(row.item, row.edit, row.prompt, row.text) for row in rows] == [
        (
            7,
            i,
            f"{form}: q?",
            chains.completion(chain.steps, chain.answer, form),
        )
        for i, chain in enumerate(kept)
        for form in chains.FORMATS
        if chain.steps or form not in chains.CHAINED
    ]
    assert sorted(made) == sorted(chains.FORMATS)
    assert one.rows(7, Question("q?"), []) == []
