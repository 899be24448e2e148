"""What a caller may give to train on, and how a wrong one is refused."""

import pytest
from golden_models import assert_one_line

from seal_jax.api import lines


class Letters:
    """A stand-in for a tokenizer: a token a letter, 99 before each sequence."""

    context = 12

    def encode(self, text):
        return [ord(c) for c in text]

    def sequence(self, text):
        return [99, *self.encode(text)]


def encoded(*texts):
    return lines.encode(Letters(), texts)


def test_a_text_is_one_line_a_list_is_many_and_a_pair_is_given_its_prompt():
    whole, pair, many = encoded("ab", ("ab", "c"), ["a", ("b", "cd")])
    assert whole == (((99, 97, 98),), (1,))
    assert pair == (((99, 97, 98, 99),), (3,))
    assert many == (((99, 97), (99, 98, 99, 100)), (1, 2))


def test_texts_differ_in_their_words_if_and_only_if_they_differ():
    texts = ["ab", "ba", ("a", "b"), ["a", "b"], ["b", "a"]]
    words = [one.words() for one in encoded(*texts)]
    assert len(set(words)) == len(texts)
    assert words == [encoded(text)[0].words() for text in texts]
    assert all(0 <= w < 2**32 for pair in words for w in pair)


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        ("one text", ["texts='one text'", "[text]"]),
        (3, ["texts=3", "must be a list"]),
        (iter(["a"]), ["texts=<", "must be a list", "give list(texts)"]),
        ([], ["texts=[]", "give one or more"]),
        (["a", " \n"], ["texts[1]=' \\n'", "leave it out"]),
        (["a", []], ["texts[1]=[]"]),
        (["a", ["b", ""]], ["texts[1][1]=''"]),
        ([("a", "")], ["texts[0]=('a', '')", "nothing to learn"]),
        ([("a", "b", "c")], ["texts[0]=('a', 'b', 'c')", "(prompt, completion)"]),
        ([None], ["texts[0]=None"]),
        ([[["a"]]], ["texts[0][0]=['a']"]),
        (["a" * 12], ["texts[0] has 13 tokens, the model takes 12", "splitlines"]),
        ([["a", ("a" * 6, "b" * 6)]], ["texts[0][1] has 13 tokens"]),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(texts, parts):
    with pytest.raises(ValueError) as caught:
        lines.encode(Letters(), texts)
    assert_one_line(caught, *parts)


def test_a_text_as_long_as_the_model_takes_is_taken():
    assert len(encoded("a" * 11)[0].ids[0]) == 12
