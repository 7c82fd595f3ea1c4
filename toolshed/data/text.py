"""Text at character level, from what ships with Python."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Int, Int32


@dataclasses.dataclass(frozen=True)
class Characters:
    """The characters of a text, numbered.

    Attributes:
      alphabet: each character at its number.
    """

    alphabet: str

    @classmethod
    def of(cls, text: str) -> Characters:
        """The alphabet of a text, in order of code point."""
        return cls("".join(sorted(set(text))))

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.alphabet)}

    def __len__(self) -> int:
        """Number of different characters."""
        return len(self.alphabet)

    def encode(self, text: str) -> Int32[np.ndarray, " length"]:
        """The characters' numbers, int32[length].

        Raises:
          ValueError: a character is not in the alphabet.
        """
        try:
            return np.array([self._numbers[character] for character in text], np.int32)
        except KeyError as error:
            raise ValueError(f"The character {error.args[0]!r} is not in the alphabet.") from None

    def decode(self, numbers: Int[np.ndarray, "..."]) -> str:
        """The text of an array of numbers.

        Raises:
          ValueError: a number stands for no character.
        """
        wrong = [int(number) for number in np.ravel(numbers) if not 0 <= number < len(self)]
        if wrong:
            raise ValueError(f"{wrong[0]} is no character; there are {len(self)}, counted from 0.")
        return "".join(self.alphabet[int(number)] for number in np.ravel(numbers))


def python_topics() -> str:
    """Python's own help topics, about 700,000 characters of English prose about Python."""
    from pydoc_data.topics import topics  # half a megabyte, so only where it is used

    return "\n".join(topics[name] for name in sorted(topics))


def windows(tokens: Int[np.ndarray, " n"], length: int) -> Int[np.ndarray, "count length"]:
    """A sequence cut into pieces that follow one another, what is left over at the end dropped.

    Args:
      tokens: int[n].
      length: of a piece, at least 1.

    Returns:
      int[n // length, length].

    Raises:
      ValueError: the sequence is shorter than one piece.
    """
    count = len(tokens) // length if length > 0 else 0
    if count == 0:
        raise ValueError(f"{len(tokens)} tokens are not enough for a window of {length}.")
    return np.asarray(tokens[: count * length]).reshape(count, length)
