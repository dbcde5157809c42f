"""Vocabularies and windows, by hand and against a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_lite as fl
from fedjax_lite.data.text import BEGIN, END, PAD, UNKNOWN


def test_a_vocabulary_has_the_most_frequent_tokens_after_the_special_ones():
    vocabulary = fl.data.vocabulary_of([["b", "a", "a"], ["c", "b", "<pad>"]], size=2)
    assert vocabulary.tokens == ("<pad>", "<unknown>", "<begin>", "<end>", "a", "b")
    assert [vocabulary.tokens[i] for i in (PAD, UNKNOWN, BEGIN, END)] == ["<pad>", "<unknown>", "<begin>", "<end>"]
    assert fl.data.vocabulary_of([]).tokens == vocabulary.tokens[:4]
    for size in (0, True):
        with pytest.raises(ValueError, match="vocabulary must be a whole number of at least 1"):
            fl.data.vocabulary_of(["ab"], size=size)


@given(st.text(), st.text())
@settings(max_examples=40, deadline=None)
def test_decode_is_the_inverse_of_encode_on_known_text(known, other):
    vocabulary = fl.data.vocabulary_of([known])
    assert fl.data.decode(vocabulary, fl.data.encode(vocabulary, known)) == known
    numbers = fl.data.encode(vocabulary, other)
    assert numbers.dtype == np.int32 and [n == UNKNOWN for n in numbers.tolist()] == [c not in known for c in other]


def test_words_and_marks():
    words = fl.data.tokens_of("Don't STOP -- he's d\u00e9j\u00e0 vu, 3.5!", "word")
    assert words == ["don't", "stop", "-", "-", "he's", "d\u00e9j\u00e0", "vu", ",", "3", ".", "5", "!"]
    with pytest.raises(ValueError, match="unit must be 'character' or 'word', got 'byte'"):
        fl.data.tokens_of("a", "byte")


@pytest.mark.parametrize("length", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("number", range(9))
def test_each_token_but_the_first_is_a_target_once(number, length):
    tokens = list(range(4, 4 + number))
    found = fl.data.windows(tokens, length)
    pairs = [(x, y) for x, y in zip(found["x"].ravel().tolist(), found["y"].ravel().tolist(), strict=True) if y != PAD]
    assert pairs == list(zip(tokens, tokens[1:]))  # noqa: B905
    assert found["x"].shape == found["y"].shape == (-(-max(number - 1, 0) // length), length)
    assert ((found["x"] == PAD) == (found["y"] == PAD)).all()


@pytest.mark.parametrize("length", [0, -1, True])
def test_lengths_that_are_refused(length):
    with pytest.raises(ValueError, match="length must be a whole number of at least 1"):
        fl.data.windows([1, 2], length)
