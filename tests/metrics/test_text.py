"""BLEU, ROUGE and METEOR equal their libraries over all texts at once, however the texts are merged."""

from __future__ import annotations

import builtins

import nltk
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate import meteor_score
from rouge_score import rouge_scorer

from toolshed.errors import ToolshedError
from toolshed.metrics import text

words = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "dogs", "ran"]), min_size=0, max_size=8
).map(" ".join)
pairs = st.lists(st.tuples(words, words.filter(bool)), min_size=1, max_size=6)


def in_parts(metric, rows, cut):
    """Two parts' states merged, with an empty one."""
    parts = [
        metric.state_from([p for p, _ in part], [r for _, r in part]) for part in (rows[:cut], rows[cut:])
    ]
    return metric.compute(metric.merge(metric.merge(parts[1], metric.empty()), parts[0]))


@settings(deadline=None, max_examples=30)
@given(rows=pairs, cut=st.integers(0, 6), smooth=st.sampled_from(["exp", "none", "add-k"]))
def test_bleu_of_merged_texts_is_sacrebleu_s_of_the_corpus(rows, cut, smooth):
    library = sacrebleu.BLEU(smooth_method=smooth, force=True)
    expected = library.corpus_score([p for p, _ in rows], [[r for _, r in rows]]).score
    assert in_parts(text.BLEU(smooth_method=smooth), rows, cut) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(rows=pairs, cut=st.integers(0, 6), kind=st.sampled_from(["rouge1", "rouge2", "rougeL", "rougeLsum"]))
def test_rouge_of_merged_texts_is_the_mean_of_rouge_score_s(rows, cut, kind):
    library = rouge_scorer.RougeScorer([kind])
    expected = np.mean([library.score(r, p)[kind].fmeasure for p, r in rows])
    assert in_parts(text.ROUGE(kind), rows, cut) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(rows=pairs, cut=st.integers(0, 6))
def test_meteor_of_merged_texts_is_the_mean_of_nltk_s(rows, cut):
    scores = [
        meteor_score.meteor_score([r.split()], p.split(), wordnet=text._NoSynonyms())  # type: ignore[arg-type]
        for p, r in rows
    ]
    assert in_parts(text.METEOR(synonyms=False), rows, cut) == pytest.approx(np.mean(scores), rel=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("one two three four", "one two three four", 1 - 0.5 * (1 / 4) ** 3),  # one run of four words
        ("One two, three", "one two , THREE", 1 - 0.5 * (1 / 4) ** 3),  # case and spaces do not matter
        ("b a", "a b", 1 - 0.5 * (2 / 2) ** 3),  # two runs of two words
        ("cats", "cat", 1 - 0.5),  # the same stem; one run of one word
        ("a", "b", 0),
    ],
)
def test_meteor_s_penalty_grows_with_the_share_of_runs(prediction, reference, expected):
    metric = text.METEOR(synonyms=False)
    assert metric.compute(metric.state_from([prediction], [reference])) == pytest.approx(expected)


def test_meteor_without_wordnet_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(LookupError, match=r"^METEOR looks up synonyms in WordNet, which is not there\."):
        text.METEOR().state_from(["a b"], ["c d"])


def test_bleu_is_of_the_corpus_not_the_mean_of_texts():
    # Of single words 7 of 8 match; the mean of both texts would be 50.
    bleu = text.BLEU(max_order=1)
    states = [bleu.state_from(["a b c d e f g"], ["a b c d e f g"]), bleu.state_from(["x"], ["y"])]
    assert bleu.compute(bleu.merge(*states)) == pytest.approx(100 * 7 / 8)


def test_several_references_count_as_one_s_best():
    rouge = text.ROUGE("rouge1")
    assert rouge.compute(rouge.state_from(["a b"], [["x y", "a b"]])) == 1
    bleu = text.BLEU(max_order=1)
    assert bleu.compute(bleu.state_from(["a b", "c d"], [["a x", "x b"], "c d"])) == pytest.approx(100)


def test_masked_texts_do_not_count_and_no_text_is_nan():
    for metric in (text.BLEU(), text.ROUGE(), text.METEOR(synonyms=False)):
        texts = ["the cat sat on the mat", "no"]
        one = metric.state_from(texts[:1], texts[:1])
        np.testing.assert_array_equal(metric.state_from(texts, [texts[0], "yes"], mask=np.array([1, 0])), one)
        assert np.isnan(metric.compute(metric.empty()))
        assert np.isnan(metric.compute(metric.state_from([], [])))


@pytest.mark.parametrize("metric", [text.BLEU(), text.ROUGE(), text.METEOR(synonyms=False)])
def test_texts_that_do_not_fit_are_an_error(metric):
    with pytest.raises(
        ToolshedError, match=r"^2 predictions, 1 references and a mask of 2; expected one of each"
    ):
        metric.state_from(["a", "b"], ["a"])
    with pytest.raises(
        ToolshedError, match=r"^The references are one string; expected a list of texts: \[text\]\.$"
    ):
        metric.state_from(["a"], "a")


def test_another_kind_of_rouge_is_an_error():
    with pytest.raises(
        ToolshedError, match=r"^ROUGE with kind='rouge9'; expected one of rouge1, rouge2, rougeL"
    ):
        text.ROUGE("rouge9")


@pytest.mark.parametrize(
    ("metric", "name"),
    [(text.BLEU(), "sacrebleu"), (text.ROUGE(stem=True), "rouge-score"), (text.METEOR(), "nltk")],
)
def test_a_library_that_is_not_there_is_named_with_its_extra(metric, name, monkeypatch):
    real = builtins.__import__

    def without(module, *args, **kwargs):
        if module.split(".")[0] == name.replace("-", "_"):
            raise ImportError(module)
        return real(module, *args, **kwargs)

    text._scorer.cache_clear()
    text._rouge_scorer.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"computed by {name}: pip install 'jax-toolshed\[text\]'\.$"):
        metric.state_from(["a"], ["a"])
