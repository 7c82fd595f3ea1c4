"""What other packages load is a stream like any other, restored by the best way each of them has.

grain and Hugging Face's datasets run for real. PyTorch and TensorFlow are stood in for by small classes with
the methods that are called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import grain
import jax
import numpy as np
import pytest

from tests.data.chains import Loader, example, numbers, plain
from tests.data.test_restore import assert_restores, read
from toolshed.data import Stream, from_arrays, from_iterable, stream
from toolshed.data.loaders import as_numpy, columns
from toolshed.errors import DataError

# --- grain ------------------------------------------------------------------------------------------


def grain_streams() -> dict[str, Callable[[], Any]]:
    source = [example(n) for n in range(8)]

    def loader() -> Any:
        sampler = grain.samplers.IndexSampler(8, shuffle=True, seed=3, num_epochs=1)
        return grain.DataLoader(data_source=source, sampler=sampler, operations=[grain.transforms.Batch(2)])

    return {
        "map data set": lambda: grain.MapDataset.source(source).shuffle(seed=1),
        "map data set that repeats": lambda: grain.MapDataset.source(source[:3]).shuffle(seed=1).repeat(2),
        "iter data set": lambda: grain.MapDataset.source(source).to_iter_dataset().batch(2),
        "filtered": lambda: grain.MapDataset.source(source).filter(lambda item: item["n"] % 2 == 0),
        "loader": loader,
    }


@pytest.mark.parametrize("name", grain_streams())
def test_grain_is_restored_by_the_state_of_its_iterators(name):
    def build() -> Stream:
        return stream(grain_streams()[name]())

    assert_restores(build)
    items, _ = read(build(), 1)
    expected = list(map(plain, grain_streams()[name]()))
    assert items[0] == expected
    ours = build()
    next(iter(ours))
    assert ours.state()["at"]["state"] is not None


def test_grain_is_a_source_of_chains_too():
    data = grain.MapDataset.source([example(n) for n in range(5)]).shuffle(seed=1)
    assert_restores(lambda: stream(data).window(2).prefetch())


def test_a_grain_data_set_without_end_has_no_length():
    endless = stream(grain.MapDataset.source([1, 2, 3]).repeat())
    with pytest.raises(TypeError, match="has no end"):
        len(endless)
    assert list(endless.take(5)) == [1, 2, 3, 1, 2]


# --- Hugging Face -----------------------------------------------------------------------------------


def hugging_face(n: int = 7) -> Any:
    rows = {"n": list(range(n)), "x": [[i, -i] for i in range(n)], "name": [str(i) for i in range(n)]}
    return datasets.Dataset.from_dict(rows)


def test_a_data_set_of_columns_is_read_by_number_and_its_lists_become_arrays():
    data = hugging_face()
    ours = stream(data)
    items = list(ours)
    assert len(ours) == 7
    assert [(item["x"].tolist(), item["x"].dtype, item["name"]) for item in items[:2]] == [
        ([0, 0], np.int64, "0"),
        ([1, -1], np.int64, "1"),
    ]
    assert repr(ours) == "Stream(stream(datasets Dataset of 7); epoch 1, item 0)"
    assert_restores(lambda: stream(data.remove_columns("name")).shuffle(3).batch(2))
    formatted = stream(data.with_format("numpy").remove_columns("name"))
    assert [plain(item) for item in formatted] == [
        plain(item) for item in stream(data.remove_columns("name"))
    ]


def test_a_data_set_that_is_streamed_is_told_its_epoch_and_read_from_its_beginning():
    data = hugging_face().remove_columns("name")

    def build() -> Stream:
        return stream(data.to_iterable_dataset(num_shards=3).shuffle(seed=1, buffer_size=3))

    assert_restores(build)
    ours = build()
    epochs = [numbers(ours) for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_batches_of_columns_are_arrays_and_rows_of_different_length_are_named():
    batch = next(iter(stream(hugging_face().batch(3))))
    assert (batch["x"].shape, batch["n"].tolist()) == ((3, 2), [0, 1, 2])
    ragged = datasets.Dataset.from_dict({"tokens": [[[1], [2, 3]]]})
    with pytest.raises(
        DataError, match=r"^The rows of column tokens differ in length, so they are no array\. Fill"
    ):
        next(iter(stream(ragged)))


def test_columns_without_the_package():
    """What the conversion does, on the kinds of value that a column may hold."""
    item = {"a": [1, 2], "b": 0.5, "c": "text", "d": None, "e": {"f": [[True]]}, "g": ["x", "y"], "h": b"raw"}
    ours = columns(item)
    assert (ours["a"].dtype, ours["a"].tolist()) == (np.int64, [1, 2])
    assert (ours["b"].dtype, float(ours["b"])) == (np.float64, 0.5)
    assert (ours["c"], ours["d"], ours["h"]) == ("text", None, b"raw")
    assert (ours["e"]["f"].tolist(), ours["g"].tolist()) == ([[True]], ["x", "y"])
    on_device = jax.numpy.ones(2)
    assert columns({"x": on_device})["x"] is on_device


# --- PyTorch, stood in for --------------------------------------------------------------------------


class Tensor:
    """What a tensor has: it must be detached and on the CPU before it is an array."""

    def __init__(self, value: Any, ready: tuple[bool, bool] = (False, False)):
        self.value, self.ready = np.asarray(value), ready

    def detach(self) -> Tensor:
        return Tensor(self.value, (True, self.ready[1]))

    def cpu(self) -> Tensor:
        return Tensor(self.value, (self.ready[0], True))

    def numpy(self) -> np.ndarray:
        assert self.ready == (True, True)
        return self.value


class Sampler:
    """A sampler that shuffles by epoch, as PyTorch's DistributedSampler does."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class TorchLoader:
    """A plain DataLoader: sized, iterable, without a state; its batches are lists of tensors."""

    def __init__(self, n: int):
        self.n, self.sampler = n, Sampler()

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[list[Any]]:
        for n in np.random.default_rng(self.sampler.epoch).permutation(self.n):
            yield [Tensor(np.full(2, n)), {"n": Tensor(n)}]


def test_a_loader_without_a_state_is_read_again_and_its_tensors_become_arrays():
    ours = stream(TorchLoader(5))
    first, named = next(iter(ours))
    assert isinstance(first, np.ndarray)
    assert isinstance(named["n"], np.ndarray)
    assert_restores(lambda: stream(TorchLoader(5)))
    assert_restores(lambda: stream(TorchLoader(5)).map(lambda pair: {"n": pair[1]["n"]}).shuffle(3).batch(2))


def test_a_sampler_that_wants_the_epoch_gets_it():
    ours = stream(TorchLoader(20)).map(lambda pair: pair[1])
    assert numbers(ours) != numbers(ours)
    without = TorchLoader(20)
    del without.sampler
    without.sampler = type("Fixed", (), {"epoch": 0})()
    ours = stream(without).map(lambda pair: pair[1])
    assert numbers(ours) == numbers(ours)


def test_a_loader_that_cannot_say_its_length_has_none():
    class Unsized(TorchLoader):
        def __len__(self) -> int:
            raise TypeError("the data set has no len()")

    with pytest.raises(TypeError, match="is not known before its end"):
        len(stream(Unsized(3)))


def test_a_stateful_loader_whose_order_runs_on_is_restored_within_and_between_epochs():
    """Its epochs differ without being told their number; its state alone says which one it is in."""
    assert_restores(lambda: stream(Loader(6, running=True)))
    assert_restores(lambda: stream(Loader(6, running=True)).batch(4).repeat(2).prefetch())
    epochs = [numbers(ours) for ours in [stream(Loader(6, running=True))] * 3]
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_state_of_a_stateful_loader_is_used_and_nothing_is_read_again():
    class Watched(Loader):
        given = 0

        def __iter__(self) -> Iterator[Any]:
            for item in super().__iter__():
                self.given += 1
                yield item

    first = stream(Watched(50))
    for _ in zip(range(40), first, strict=False):
        pass
    loader = Watched(50)
    second = stream(loader)
    second.restore(json.loads(json.dumps(first.state())))
    assert len(list(second)) == 10
    assert loader.given == 10


def test_a_data_set_by_number_is_read_by_number():
    class Numbered:
        def __init__(self):
            self.asked: list[int] = []

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.asked.append(index)
            return {"n": Tensor(index)}

    data = Numbered()
    ours = stream(data)
    assert numbers(ours) == [0, 1, 2, 3]
    ours.restore({**ours.state(), "ended": False, "index": 3, "at": {"epoch": 1, "index": 3}})
    assert numbers(ours) == [3]
    assert data.asked == [0, 1, 2, 3, 3]


# --- TensorFlow -------------------------------------------------------------------------------------


class TensorFlowData:
    """A tf.data.Dataset: read as numpy, and skipped without being read."""

    def __init__(self, n: int, skipped: int = 0):
        self.n, self.skipped = n, skipped

    def __len__(self) -> int:
        return self.n - self.skipped

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("this gives tensors")

    def skip(self, count: int) -> TensorFlowData:
        return TensorFlowData(self.n, self.skipped + count)

    def as_numpy_iterator(self) -> Iterator[Any]:
        return (example(n) for n in range(self.skipped, self.n))


def test_tensorflow_s_data_sets_are_read_as_numpy_and_skipped():
    ours = stream(TensorFlowData(5))
    assert (len(ours), numbers(ours)) == (5, [0, 1, 2, 3, 4])
    assert_restores(lambda: stream(TensorFlowData(5)).shuffle(2).batch(2))


# --- anything else ----------------------------------------------------------------------------------


def test_a_stream_is_itself_and_what_python_has_is_iterated():
    own = from_arrays({"x": [1, 2]}, 1)
    assert stream(own) is own
    assert list(stream([1, 2])) == list(stream((1, 2))) == list(stream(iter([1, 2]))) == [1, 2]
    assert list(stream(range(2)).map(lambda n: n)) == [0, 1]
    assert stream([1, 2]).state()["chain"] == from_iterable([1, 2]).state()["chain"]


def test_leaves_that_are_no_tensors_stay_as_they_are():
    item = {"x": np.ones(2), "text": "a", "device": jax.numpy.ones(2), "n": 3}
    assert all(as_numpy(item)[name] is leaf for name, leaf in item.items())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"x": [1]},
            r"^Expected a loader or an iterable, got a dict\. For arrays by name use from_arrays\.$",
        ),
        (np.ones((2, 3)), r"^Expected a loader or an iterable, got float64\[2,3\]\. For arrays by name"),
        (len, r"got builtin_function_or_method\. For a function of a number use from_function\.$"),
        (3, r"^Expected a loader or an iterable, got int\.$"),
        ("text", r"^Expected a loader or an iterable, got str\.$"),
    ],
)
def test_what_is_no_loader_is_refused_with_what_to_use(source, message):
    with pytest.raises(DataError, match=message):
        stream(source)


def test_a_state_that_is_no_data_is_refused_when_it_is_met():
    class Odd(Loader):
        def state_dict(self) -> dict[str, Any]:
            return {"handle": object()}

    with pytest.raises(DataError, match=r"holds a object, which cannot be saved"):
        next(iter(stream(Odd(3))))
