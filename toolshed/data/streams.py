"""Streams: sources of batches that can be iterated again, have a position, and are transformed in chains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from toolshed.data.combine import Concat, Interleave, Zip
from toolshed.data.node import Node, Position, Reader, whole
from toolshed.data.prefetch import Prefetch
from toolshed.data.sources import FunctionSource, IterableSource, OneShotSource
from toolshed.data.transforms import Batch, Map, PadLast, Repeat, Shuffle, Take, Window
from toolshed.errors import DataError


def from_iterable(iterable: Iterable[Any]) -> Stream:
    """A stream of the items of an iterable: a list, a range, any object with ``__iter__``.

    Each epoch iterates it again. `Stream.restore` skips what is before the position, so the iterable must
    give the same items each time. An iterator, such as a generator, has one epoch and goes forwards only.

    Raises:
      DataError: it cannot be iterated, or is a dict.
    """
    if isinstance(iterable, Mapping):
        raise DataError("Expected an iterable of items, got one dict. For arrays by name use from_arrays.")
    if not isinstance(iterable, Iterable):
        raise DataError(f"Expected an iterable of items, got {type(iterable).__name__}.")
    if isinstance(iterable, Iterator):
        return Stream(OneShotSource(iterable))
    return Stream(IterableSource(iterable))


def from_function(fn: Callable[[int], Any], length: int | None = None) -> Stream:
    """A stream of ``fn(0), fn(1), ...``. Any position is reached at once, without what is before it.

    Args:
      fn: an item or a batch by its number, always the same for the same number.
      length: items in an epoch, each epoch counting from 0 again; None for one epoch without end.

    Raises:
      DataError: ``fn`` is no function, or ``length`` no whole number from 0.
    """
    if not callable(fn):
        raise DataError(f"from_function needs a function of a number, got {type(fn).__name__}.")
    return Stream(FunctionSource(fn, None if length is None else whole("length", length, 0)))


class Stream:
    """A source of items that can be iterated again, with a position, and with transforms as methods.

    Iterating goes from the position to the end of the epoch and moves the position item by item; the next
    iteration is the next epoch. A loop that was broken off goes on where it was. A stream has one
    position, however many iterators it gave, and belongs to one thread.

    A transform gives a new stream at its beginning. It shares neither position nor anything else that
    changes with the stream it was made of. Items are dicts or other pytrees of numpy arrays.

    `state` and `restore` save and set the position, within an epoch too. What is random in a chain follows
    from its seeds and the position alone.

    Attributes:
      position: number of items given so far, over all epochs.

    Example:
      >>> from toolshed.data import from_iterable
      >>> stream = from_iterable(range(6)).map(lambda n: {"n": n}).batch(4, last="mask")
      >>> for batch in stream:
      ...     print(*batch["n"])
      0 1 2 3
      4 5 4 4
    """

    def __init__(self, node: Node):
        self._node = node
        self.position = 0
        self._reader: Reader | None = None
        self._place(0, 0, node.start(0), ended=False)

    def _place(self, epoch: int, index: int, at: Position, *, ended: bool) -> None:
        self._epoch = epoch
        self._index = index
        self._at = at
        self._ended = ended  # _at is the end of the epoch, and nothing of the next one was taken
        self._entered = not ended  # False: a loader has yet to be told that its epoch has ended

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next item belongs to, as far as that is known."""
        return self._epoch + (self._ended or self._index == self._node.length != 0)

    @property
    def goes_back(self) -> bool:
        """Whether the position can be set to an earlier one; not where a generator is read."""
        return self._node.goes_back

    def __len__(self) -> int:
        """Items in an epoch.

        Raises:
          TypeError: it is not known, or there is no end.
        """
        length = self._node.length
        if length is None or length == math.inf:
            reason = "is not known before its end" if length is None else "has no end"
            raise TypeError(f"The length of an epoch of {self!r} {reason}.")
        return int(length)

    def __bool__(self) -> bool:
        return True  # without it the truth of a stream would be its length, which not all have

    def __iter__(self) -> Iterator[Any]:
        """The items from here to the end of the epoch."""
        try:
            gave, begun = False, False
            while not gave and not begun:
                self._enter()
                begun = self._index == 0
                while (pair := next(self._reading(), None)) is not None:
                    item, self._at = pair
                    self._index += 1
                    self.position += 1
                    gave = True
                    yield item
                    del item, pair
                self._close()
                self._ended = True
        finally:
            self._close()

    def _enter(self) -> None:
        """Begins the next epoch where one has ended."""
        if self._ended:
            if not self._entered:
                next(self._reading(), None)
                self._close()
            epoch = self._epoch + 1
            self._place(epoch, 0, self._node.start(epoch), ended=False)

    def _reading(self) -> Reader:
        if self._reader is None:
            self._reader = self._node.read(self._at)
        return self._reader

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def in_order(self) -> Iterator[Any]:
        """One pass over all items, unshuffled, unrepeated and with nothing dropped. Moves nothing.

        What evaluation uses. What is before a `zip` stays as it is, so that the pairs stay the same. A
        source that can be iterated only once is used up by it.

        Raises:
          DataError: the items have no end.
        """
        node = self._node.in_order()
        if node.length == math.inf:
            raise DataError(f"One pass over {self!r} has no end. Say with take(n) how much of it is meant.")
        return (item for item, _ in node.read(node.start(0)))

    def copy(self) -> Stream:
        """The same stream at the same place, with a position of its own. What it reads from is shared."""
        twin = copy.copy(self)
        twin._reader = None
        return twin

    def mark(self) -> Any:
        """Where the stream is, for `state`. Unlike that it costs nothing, and means nothing elsewhere."""
        return self.position, self._epoch, self._index, self._ended, self._at

    def state(self, mark: Any = None) -> dict[str, Any]:
        """Where the stream is, as data that JSON can hold, with what tells the stream apart from others.

        Functions are told apart by name alone, and iterables by type and length.

        Args:
          mark: what `mark` gave earlier, for where the stream was then.
        """
        position, epoch, index, ended, at = self.mark() if mark is None else mark
        return {
            "position": position,
            "epoch": epoch,
            "index": index,
            "ended": ended,
            "at": copy.deepcopy(at),
            "chain": self._node.chain(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved position.

        Costs what reading on from there costs: nothing where the source is arrays or a function; an
        iterable skips what is before; `shuffle` and `window` read a block or a window again.

        Raises:
          DataError: the position belongs to another chain of transforms or another data set, or is none.
        """
        check_entries(state, ("position", "epoch", "index", "ended", "at", "chain"))
        here, there = self._node.chain(), state["chain"]
        if not isinstance(there, list):
            raise DataError(f"The saved chain is {there!r}; expected a list of its steps.")
        if here != there:
            raise DataError(f"The saved position is of another stream: {_difference(there, here)}.")
        counts = {name: whole(f"The saved {name}", state[name], 0) for name in ("position", "epoch", "index")}
        if not _fits(state["at"], self._node.start(0)):
            raise DataError(
                f"The saved position is {state['at']!r}; expected one like {self._node.start(0)!r}."
            )
        self._close()
        self.position = counts["position"]
        at = copy.deepcopy(state["at"])
        self._place(counts["epoch"], counts["index"], at, ended=bool(state["ended"]))

    def repeat(self, n: int | None = None) -> Stream:
        """``n`` epochs as one, each in an order of its own; None for one epoch without end."""
        return Stream(Repeat(self._node, n))

    def shuffle(self, buffer_size: int, seed: int = 0) -> Stream:
        """The items in a random order, another one in each epoch.

        Blocks of ``buffer_size`` consecutive items are permuted, each by the seed, the epoch and its
        number. No item moves further than its block, so items that come sorted need blocks as large as
        the epoch, or `from_arrays`, which shuffles all. In exchange a position is a few numbers, and
        going to one reads at most a block again. Up to ``buffer_size`` items are held in memory.
        """
        return Stream(Shuffle(self._node, buffer_size, seed))

    def batch(self, n: int, last: Literal["keep", "drop", "mask"] = "keep") -> Stream:
        """``n`` items stacked to one, each leaf with a new first axis.

        Args:
          n: examples in a batch.
          last: what becomes of a last batch that is not full. ``"keep"``: it is shorter. ``"drop"``: it
            is left out. ``"mask"``: it is filled up, and every batch gets a ``mask``, as in `pad_last`.
        """
        return Stream(Batch(self._node, n, last))

    def map(self, fn: Callable[..., Any], *, seed: int | None = None) -> Stream:
        """``fn(item)`` of each item.

        Args:
          fn: should leave its argument as it is, for the item may belong to the source.
          seed: with a seed ``fn(item, rng)`` is called, rng a `numpy.random.Generator` made of the seed,
            the epoch and the item's number, so that a restored stream draws the same.
        """
        return Stream(Map(self._node, fn, seed))

    def take(self, n: int) -> Stream:
        """The first ``n`` items of each epoch. No more than those are read."""
        return Stream(Take(self._node, n))

    def pad_last(self, n: int) -> Stream:
        """Batches filled up to ``n`` examples with copies of their first, with a ``mask`` of the real ones.

        ``mask`` is bool[n]; one that a batch has already is extended with False.
        """
        return Stream(PadLast(self._node, n))

    def window(self, size: int, stride: int = 1) -> Stream:
        """``size`` neighbouring items stacked along a new first axis, from every ``stride``-th item on.

        What is left over at the end of an epoch is dropped.
        """
        return Stream(Window(self._node, size, stride))

    def concat(self, *others: Stream) -> Stream:
        """The items of this stream and then those of the others, as one epoch."""
        return Stream(Concat(self._with(others)))

    def zip(self, *others: Stream) -> Stream:
        """Tuples of an item of this stream and one of each other. An epoch ends with the shortest."""
        return Stream(Zip(self._with(others)))

    def interleave(self, *others: Stream, weights: Sequence[float] | None = None, seed: int = 0) -> Stream:
        """Items of this stream and the others in turn, until all have ended.

        Args:
          others: streams.
          weights: how often each stream is drawn from, this one first, in any unit; those that have ended
            are left out. None takes them one after another.
          seed: of the drawing, together with the epoch's number.
        """
        parts = self._with(others)
        return Stream(Interleave(parts, None if weights is None else tuple(map(float, weights)), seed))

    def prefetch(self, n: int = 2, device: Any = None) -> Stream:
        """The same items on the device, read up to ``n`` ahead by a thread, the last step of a chain.

        The thread runs while the stream is iterated. It ends with the epoch, and when the iterator is
        dropped: after ``break``, an exception, or at the latest when it is garbage collected. It never
        keeps the interpreter alive. `state` counts only what was taken: what was read ahead is read again
        after `restore`. An error in the source is raised where its item would have come, with the
        traceback of the thread.

        The source runs in that thread, under the consumer's context variables and those of jax's settings
        that hold for one thread (``jax.enable_x64``, ``jax.set_mesh`` and so on), as they are at the start
        of the epoch.

        It pays where an item takes longer to make or to transfer than the tenth of a millisecond that
        handing it from thread to thread takes, and where the device is not the same CPU.

        Args:
          n: items that wait on the device. One more is in the thread's hands.
          device: a device, or a `jax.sharding.Sharding` over several; None for the default device.
        """
        return Stream(Prefetch(self._node, n, device))

    def _with(self, others: tuple[Stream, ...]) -> tuple[Node, ...]:
        for other in others:
            if not isinstance(other, Stream):
                raise DataError(f"Expected streams, got {type(other).__name__}. See toolshed.data.stream.")
        return (self._node, *(other._node for other in others))

    def __repr__(self) -> str:
        item = self._index if self.epoch == self._epoch else 0
        return f"Stream({' | '.join(self._node.labels())}; epoch {self.epoch}, item {item})"


def check_entries(state: Any, names: tuple[str, ...]) -> None:
    """Whether a saved state has all its entries.

    Raises:
      DataError: it is no dict, or lacks some.
    """
    if not isinstance(state, Mapping):
        raise DataError(f"Expected a stream's state as a dict, got {type(state).__name__}.")
    absent = [name for name in names if name not in state]
    if absent:
        raise DataError(f"Expected a stream's state with {', '.join(names)}; it lacks {', '.join(absent)}.")


def _difference(there: list[str], here: list[str]) -> str:
    """Where two chains part, in words."""
    for theirs, ours in zip(there, here, strict=False):
        if theirs != ours:
            return f"it has {theirs} where this one has {ours}"
    longer, whose = (there, "it") if len(there) > len(here) else (here, "this one")
    return f"{whose} goes on with {' | '.join(longer[min(len(there), len(here)) :])}"


def _fits(at: Any, like: Any) -> bool:
    """Whether a position has the form of another one of its chain."""
    if isinstance(like, dict):
        return (
            isinstance(at, Mapping) and at.keys() == like.keys() and all(_fits(at[k], like[k]) for k in like)
        )
    if isinstance(like, list):
        # None stands for a part that has ended
        return (
            isinstance(at, Sequence)
            and len(at) == len(like)
            and all(a is None or _fits(a, b) for a, b in zip(at, like, strict=True))
        )
    if isinstance(like, int):
        return isinstance(at, int) and not isinstance(at, bool) and at >= 0
    return True
