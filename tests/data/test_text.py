"""Characters become numbers and come back; windows follow one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolshed.data import Characters, python_topics, windows


@given(st.text(max_size=60))
def test_a_text_comes_back_from_its_numbers(text):
    characters = Characters.of(text)
    numbers = characters.encode(text)
    assert numbers.dtype == np.int32
    assert numbers.shape == (len(text),)
    assert characters.decode(numbers) == text
    assert len(characters) == len(set(text))
    assert set(numbers.tolist()) == set(range(len(characters)))


def test_characters_are_numbered_in_the_order_of_their_code_points():
    characters = Characters.of("banana and ß\n")
    assert characters.alphabet == "\n abdnß"
    assert characters.encode("ban").tolist() == [3, 2, 5]
    assert characters.decode(np.array([3, 2, 5])) == "ban"
    assert Characters.of("ßdnab\n aa") == characters  # a value, however often and in what order


def test_decoding_reads_arrays_of_any_shape_in_order():
    characters = Characters.of("abcdef")
    assert characters.decode(np.arange(6).reshape(2, 3)) == "abcdef"
    assert characters.decode(np.array(2)) == "c"
    assert characters.decode(np.zeros(0, np.int32)) == ""


def test_a_character_that_is_not_in_the_alphabet_is_named():
    with pytest.raises(ValueError, match=r"^The character 'z' is not in the alphabet\.$"):
        Characters.of("abc").encode("abz")


@pytest.mark.parametrize("number", [3, -1, 1000])
def test_a_number_that_is_no_character_is_an_error(number):
    with pytest.raises((ValueError, IndexError)):
        Characters.of("abc").decode(np.array([number]))


def test_python_s_topics_are_much_text_and_the_same_each_time():
    text = python_topics()
    assert 300_000 < len(text) < 3_000_000
    assert "assignment" in text
    assert text == python_topics()
    characters = Characters.of(text)
    assert characters.decode(characters.encode(text[:5_000])) == text[:5_000]


@given(n=st.integers(1, 50), length=st.integers(1, 12))
def test_windows_are_the_sequence_cut_up_without_gap_or_overlap(n, length):
    if length > n:
        return
    pieces = windows(np.arange(n, dtype=np.int32), length)
    assert pieces.shape == (n // length, length)
    assert pieces.dtype == np.int32
    assert pieces.ravel().tolist() == list(range(n // length * length))


def test_a_window_of_seven_by_hand():
    assert windows(np.arange(7), 3).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("n", "length"), [(3, 4), (0, 1), (5, 0), (5, -2)])
def test_a_sequence_shorter_than_a_window_is_an_error(n, length):
    with pytest.raises(ValueError, match=rf"^{n} tokens are not enough for a window of {length}\.$"):
        windows(np.arange(n), length)
