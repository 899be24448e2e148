"""Two-step prompts: what they ask, and what a list of strategies is read as."""

import pytest

from seal_jax.embedded import world_corpus
from seal_jax.tasks import self_edit, strategies
from seal_jax.tasks.passage import Passage

PASSAGE = Passage("p", "Karsk", "Ada {strategy} cooks.", ())


@pytest.mark.parametrize("name", strategies.TWO_STEPS)
def test_both_steps_show_the_passage_and_the_second_its_strategy(name):
    template = self_edit.load_template(name, "propose")
    listing = self_edit.listing_prompt(template, PASSAGE)
    assert listing is not None and PASSAGE.text in listing
    prompt = self_edit.propose_prompt(template, PASSAGE, "Ask {title}.")
    # A placeholder in a value stays what it is.
    assert PASSAGE.text in prompt and "Ask {title}." in prompt
    assert strategies.NO_OTHER in self_edit.propose_prompt(template, PASSAGE)
    with pytest.raises(ValueError, match="two steps"):
        strategies.one_step(name)


def test_other_prompts_have_one_step():
    for name, template in self_edit.PROMPTS.items():
        if name not in strategies.TWO_STEPS:
            assert self_edit.listing_prompt(template, PASSAGE) is None
            strategies.one_step(name)
            assert "{" not in self_edit.propose_prompt(
                template, Passage("p", "Karsk", "Ada cooks.", ())
            )
    own = "{title} {passage} {strategy}"
    assert self_edit.propose_prompt(own, PASSAGE).endswith("{strategy}")


def test_a_list_is_read_line_by_line_without_marks():
    text = (
        " Reword it.\n2. Ask yourself **questions**\n- Reword IT.\n\n3) Compare.\n"
        "(4) Tell 1900 from 1901.\n***\n* 12 facts\n"
    )
    assert strategies.listed(text, 9) == [
        "Reword it.",
        "Ask yourself **questions",
        "Compare.",
        "Tell 1900 from 1901.",
        "12 facts",
    ]
    assert strategies.listed(text, 2) == ["Reword it.", "Ask yourself **questions"]
    assert strategies.listed("\n--\n", 3) == []
    with pytest.raises(ValueError, match="most=0 must be at least 1"):
        strategies.listed(text, 0)


def test_the_embedded_model_knows_all_words_of_its_prompts():
    known = set(world_corpus.vocabulary())
    plain = [
        strategies.TWO_STEPS["strategies-plain"].writing,
        *strategies.BEGUN.values(),
    ]
    for template in plain:
        bare = template
        for name in ("{title}", "{passage}", "{strategy}"):
            bare = bare.replace(name, " ")
        assert set(world_corpus.split_words(bare)) <= known
