"""Metrics of texts, on the host: BLEU by sacrebleu, ROUGE by rouge-score, METEOR by nltk.

Texts are strings and cannot enter a compiled step, so these are no members of a
`toolshed.metrics.Collection`. Otherwise they are as the others: ``state_from`` takes texts rather than a
Context, and states merge. They need the extra ``text``, imported at first use.

Example:
  >>> from toolshed.metrics import text
  >>> bleu = text.BLEU()
  >>> a = bleu.state_from(["the cat sat on the mat"], ["the cat sat on the mat"])  # doctest: +SKIP
  >>> bleu.compute(bleu.merge(a, bleu.empty()))  # doctest: +SKIP
  100.00000000000004
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from toolshed.errors import ToolshedError

_ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class TextMetric(abc.ABC):
    """What metrics of texts share: a state is a vector that adds up over texts."""

    @abc.abstractmethod
    def empty(self) -> Shaped[np.ndarray, "n"]:
        """The state of no text."""

    def state_from(
        self,
        predictions: Sequence[str],
        references: Sequence[str | Sequence[str]],
        mask: Iterable[Any] | None = None,
    ) -> Shaped[np.ndarray, "n"]:
        """The state of some texts.

        Args:
          predictions: the texts.
          references: for each, one text or several that it may be like.
          mask: which texts count; None counts all.
        """
        rows = _counting(predictions, references, mask)
        return sum((self._of_one(prediction, several) for prediction, several in rows), start=self.empty())

    def merge(self, a: Shaped[np.ndarray, "n"], b: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
        """The state of all texts of both."""
        return a + b

    @abc.abstractmethod
    def compute(self, state: Shaped[np.ndarray, "n"]) -> float:
        """The value of a state, NaN of no text."""

    @abc.abstractmethod
    def _of_one(self, prediction: str, references: list[str]) -> Shaped[np.ndarray, "n"]:
        """The state of one text."""


@dataclasses.dataclass(frozen=True)
class BLEU(TextMetric):
    """How many n-grams of predicted texts are in their references, with a penalty for short ones.

    The score is of the corpus, from 0 to 100: n-grams are counted over all texts, and counts merge exactly.
    It is not the mean over texts.

    Attributes:
      tokenize: sacrebleu's name of a tokenizer: "13a" (its default), "intl", "char", "none", …
      lowercase: count without regard to case.
      smooth_method: what an n-gram that never matched counts as: "exp" (sacrebleu's default), "none", …
      max_order: n of the longest n-grams.

    References:
      K. Papineni et al., "BLEU: a method for automatic evaluation of machine translation", 2002. M. Post,
      "A call for clarity in reporting BLEU scores", 2018.
    """

    tokenize: str = "13a"
    lowercase: bool = False
    smooth_method: str = "exp"
    max_order: int = 4

    def empty(self) -> Int64[np.ndarray, "n"]:
        """The state of no text: their number, lengths in tokens, n-grams that matched, all n-grams."""
        return np.zeros(3 + 2 * self.max_order, np.int64)

    def compute(self, state: Int64[np.ndarray, "n"]) -> float:
        """The score from 0 to 100, NaN of no text."""
        number, length, reference_length, *counts = state.tolist()
        if not number:
            return float("nan")
        score = _sacrebleu().BLEU.compute_bleu(
            counts[: self.max_order],
            counts[self.max_order :],
            length,
            reference_length,
            smooth_method=self.smooth_method,
            max_ngram_order=self.max_order,
        )
        return float(score.score)

    def _of_one(self, prediction: str, references: list[str]) -> Int64[np.ndarray, "n"]:
        scorer = _scorer(self.tokenize, self.lowercase, self.max_order)
        score = scorer.corpus_score([prediction], [[reference] for reference in references])
        return np.array([1, score.sys_len, score.ref_len, *score.counts, *score.totals], np.int64)


class _MeanOfTexts(TextMetric):
    """What metrics share that are a mean over texts: their state is a sum and a number."""

    def empty(self) -> Float64[np.ndarray, "2"]:
        """The state of no text."""
        return np.zeros(2)

    def compute(self, state: Float64[np.ndarray, "2"]) -> float:
        """The mean, NaN of no text."""
        total, number = state.tolist()
        return total / number if number else float("nan")

    def _of_one(self, prediction: str, references: list[str]) -> Float64[np.ndarray, "2"]:
        return np.array([self._score(prediction, references), 1], np.float64)

    @abc.abstractmethod
    def _score(self, prediction: str, references: list[str]) -> float:
        """The score of one text."""


@dataclasses.dataclass(frozen=True)
class ROUGE(_MeanOfTexts):
    """How much of references is in predicted texts: the mean F-measure over texts, from 0 to 1.

    Of several references of a text the one with the highest F-measure counts.

    Attributes:
      kind: "rouge1" or "rouge2" for n-grams, "rougeL" for the longest common subsequence, "rougeLsum" for
        that line by line.
      stem: compare words without their endings (English).

    References:
      C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004.
    """

    kind: str = "rougeL"
    stem: bool = False

    def __post_init__(self):
        if self.kind not in _ROUGE:
            raise ToolshedError(f"ROUGE with kind={self.kind!r}; expected one of {', '.join(_ROUGE)}.")

    def _score(self, prediction: str, references: list[str]) -> float:
        scores = _rouge_scorer(self.kind, self.stem).score_multi(references, prediction)
        return float(scores[self.kind].fmeasure)


@dataclasses.dataclass(frozen=True)
class METEOR(_MeanOfTexts):
    """How well words of predicted texts can be aligned with a reference's: the mean over texts, 0 to 1.

    Words are aligned that are equal, have the same stem or are synonyms (English); many short runs of
    them instead of few long ones cost up to half. Of several references the best one counts. Words and
    punctuation marks are split from each other, and case does not matter.

    Attributes:
      synonyms: look synonyms up in WordNet, which nltk downloads once: ``python -m nltk.downloader
        wordnet``. Without it there, ``state_from`` raises a LookupError.
      alpha: weight of recall against precision.
      beta: how steeply the penalty grows with the share of runs among aligned words.
      gamma: the largest penalty.

    References:
      S. Banerjee and A. Lavie, "METEOR: an automatic metric for MT evaluation with improved correlation
      with human judgments", 2005; the parameters are those of A. Lavie and A. Agarwal, 2007, in nltk.
    """

    synonyms: bool = True
    alpha: float = 0.9
    beta: float = 3.0
    gamma: float = 0.5

    def _score(self, prediction: str, references: list[str]) -> float:
        options: dict[str, Any] = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        if not self.synonyms:
            options["wordnet"] = _NoSynonyms()
        try:
            return float(_meteor_score()(list(map(_words, references)), _words(prediction), **options))
        except LookupError as error:
            raise LookupError(
                "METEOR looks up synonyms in WordNet, which is not there. Download it once: python -m"
                " nltk.downloader wordnet. METEOR(synonyms=False) does without."
            ) from error


class _NoSynonyms:
    """A WordNet that knows no word."""

    def synsets(self, word: str) -> list[Any]:
        """The meanings of a word: none."""
        del word
        return []


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def _counting(predictions: Any, references: Any, mask: Any) -> list[tuple[str, list[str]]]:
    """The texts that count, each with its references."""
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise ToolshedError(f"The {name} are one string; expected a list of texts: [text].")
    mask = [True] * len(predictions) if mask is None else [bool(entry) for entry in mask]
    if not len(predictions) == len(references) == len(mask):
        raise ToolshedError(
            f"{len(predictions)} predictions, {len(references)} references and a mask of {len(mask)};"
            " expected one of each for every text."
        )
    several = ([reference] if isinstance(reference, str) else list(reference) for reference in references)
    rows = zip(predictions, several, mask, strict=True)
    return [(prediction, reference) for prediction, reference, counts in rows if counts]


@functools.cache
def _scorer(tokenize: str, lowercase: bool, max_order: int) -> Any:
    # Smoothing would add to the counts, which are to be merged as they are.
    return _sacrebleu().BLEU(
        tokenize=tokenize, lowercase=lowercase, max_ngram_order=max_order, smooth_method="none", force=True
    )


def _sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise ImportError("BLEU is computed by sacrebleu: pip install 'jax-toolshed[text]'.") from error
    return sacrebleu.metrics


@functools.cache
def _rouge_scorer(kind: str, stem: bool) -> Any:
    try:
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise ImportError("ROUGE is computed by rouge-score: pip install 'jax-toolshed[text]'.") from error
    return rouge_scorer.RougeScorer([kind], use_stemmer=stem)


def _meteor_score() -> Any:
    try:
        from nltk.translate import meteor_score
    except ImportError as error:
        raise ImportError("METEOR is computed by nltk: pip install 'jax-toolshed[text]'.") from error
    return meteor_score.meteor_score
