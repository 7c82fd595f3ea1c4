"""Reading ahead changes nothing but the time it takes, and leaves no thread behind."""

from __future__ import annotations

import contextvars
import gc
import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from tests.data.chains import example, examples, numbers, plain
from toolshed.data import Stream, from_function, from_iterable
from toolshed.data.prefetch import Channel
from toolshed.errors import DataError


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "toolshed-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert threads() == []
    yield
    gc.collect()
    assert threads() == []


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it came true within ten seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


class Recorded:
    """Numbers one after another, and how many were taken by whoever reads them."""

    def __init__(self, n: int = 100):
        self.n, self.taken = n, 0

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.n):
            self.taken += 1
            yield {"n": np.int32(number)}


# --- what it gives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 50])
def test_the_items_are_those_of_the_source_in_their_order(n):
    ahead, source = examples(20).shuffle(7).prefetch(n), examples(20).shuffle(7)
    for _ in range(2):
        assert list(map(plain, ahead)) == list(map(plain, source))


def test_the_next_items_are_read_while_the_consumer_works_and_no_more_than_that():
    source = Recorded()
    iterator = iter(from_iterable(source).prefetch(3))
    next(iterator)
    assert wait_until(lambda: source.taken == 5)  # one is taken, three wait, one is in the thread's hands
    time.sleep(0.05)
    assert source.taken == 5
    next(iterator)
    assert wait_until(lambda: source.taken == 6)


def test_the_state_counts_what_was_taken_and_not_what_was_read():
    source = Recorded()
    stream = from_iterable(source).prefetch(4)
    iterator = iter(stream)
    next(iterator), next(iterator)
    assert wait_until(lambda: source.taken == 7)
    assert (stream.position, stream.state()["at"]["index"]) == (2, 2)
    del iterator
    assert numbers(stream.take(1)) == [0]  # another stream, at its own beginning
    assert numbers([next(iter(stream))]) == [2]


def test_batches_lie_on_the_device_uncommitted_or_where_it_was_said():
    device = jax.devices()[0]
    (batch,) = examples(2).batch(2).prefetch()
    assert isinstance(batch["n"], jax.Array)
    assert not batch["n"].committed
    (batch,) = examples(2).batch(2).prefetch(device=device)
    assert batch["n"].committed
    assert batch["n"].devices() == {device}


def test_memory_that_the_source_writes_again_is_copied_first():
    """Whether jax would take the memory over depends on where it lies: hence many sizes."""
    for size in (1, 4, 64, 1024, 10_000):
        memory = np.zeros(size, np.float32)

        def reuse(number: int, memory: np.ndarray = memory) -> dict[str, np.ndarray]:
            memory[:] = number
            return {"n": memory}

        values = [batch["n"] for batch in from_function(reuse, 8).prefetch(3)]
        assert [value.tolist() for value in values] == [[number] * size for number in range(8)]


def test_a_sharding_spreads_batches_over_devices():
    code = """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from toolshed.data import from_arrays
        sharding = NamedSharding(jax.make_mesh((4,), ("batch",)), P("batch"))
        arrays = {"x": np.arange(32.0, dtype=np.float32).reshape(16, 2)}
        batches = list(from_arrays(arrays, 8, shuffle=False).prefetch(device=sharding))
        assert [batch["x"].sharding for batch in batches] == [sharding] * 2
        assert [shard.data.shape for shard in batches[0]["x"].addressable_shards] == [(2, 2)] * 4
        assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), arrays["x"])
        with jax.default_device(jax.devices()[2]):
            (batch,) = from_arrays(arrays, 16).prefetch()
        assert batch["x"].devices() == {jax.devices()[2]}
        (batch,) = from_arrays(arrays, 16).prefetch()
        assert batch["x"].devices() == {jax.devices()[0]}
        try:
            list(from_arrays(arrays, 6).prefetch(device=sharding))
        except ValueError:
            print("6 examples on 4 devices")
    """
    assert run(code) == "6 examples on 4 devices\n"


# --- settings of the consumer's thread --------------------------------------------------------------


def test_the_consumer_s_precision_holds_for_what_is_put_on_the_device():
    def dtypes() -> list[Any]:
        return [item.dtype for item in from_iterable([np.arange(2, dtype=np.float64)]).prefetch()]

    assert dtypes() == [np.float32]
    with jax.enable_x64(True):
        assert dtypes() == [np.float64]
    assert dtypes() == [np.float32]


def test_the_source_runs_under_the_consumer_s_context_variables():
    variable = contextvars.ContextVar("variable", default="nothing")
    stream = from_function(lambda n: {"n": int(variable.get())}, 2).prefetch()
    token = variable.set("7")
    assert numbers(stream) == [7, 7]
    variable.reset(token)
    with pytest.raises(ValueError, match="nothing"):
        list(stream)


# --- errors -----------------------------------------------------------------------------------------


def broken(number: int) -> Any:
    if number == 3:
        raise OSError("the disk is gone")
    return example(number)


def test_an_error_in_the_source_comes_at_its_item_with_the_traceback_of_the_thread():
    stream, seen = from_function(broken, 9).prefetch(8), []

    def loop() -> None:
        for item in stream:
            seen.append(int(item["n"]))
            time.sleep(0.01)  # the thread has long met its error

    with pytest.raises(OSError, match="the disk is gone") as caught:
        loop()
    assert seen == [0, 1, 2]
    assert stream.position == 3
    assert "broken" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(stream))  # and again, for the position is still before it


def test_an_item_that_no_device_takes_is_an_error_in_the_consumer():
    stream = from_iterable([example(0), {"text": "no number"}]).prefetch()
    iterator = iter(stream)
    assert int(next(iterator)["n"]) == 0
    with pytest.raises(TypeError, match="str"):
        next(iterator)


def test_even_an_exit_in_the_source_is_the_consumer_s():
    def leave(number: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(from_function(leave).prefetch())


def test_a_source_that_ends_itself_wrongly_does_not_end_the_stream_in_silence():
    def stop(number: int) -> Any:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(from_function(stop).prefetch())


# --- the end of the thread --------------------------------------------------------------------------


def test_the_thread_ends_with_the_epoch():
    stream = examples(3).prefetch()
    assert len(list(stream)) == 3
    assert threads() == []


def endless() -> Stream:
    return from_function(example).prefetch()


def test_the_thread_ends_after_break():
    for _ in endless():
        assert len(threads()) == 1
        break
    assert threads() == []


def test_the_thread_ends_after_an_error_in_the_loop():
    def loop() -> None:
        for _ in endless():
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        loop()
    assert threads() == []


@pytest.mark.parametrize("at", [0, 3])  # at 0 the consumer may still be starting the thread
def test_ctrl_c_is_heard_while_the_next_item_is_waited_for(at):
    def slow(number: int) -> Any:
        if number == at:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.2)
        return example(number)

    with pytest.raises(KeyboardInterrupt):
        list(itertools.islice(from_function(slow).prefetch(), 1000))
    assert wait_until(lambda: threads() == [])


def test_the_thread_ends_when_the_iterator_is_dropped():
    iterator = iter(endless())
    next(iterator)
    assert len(threads()) == 1
    del iterator
    assert threads() == []


def test_the_thread_ends_when_the_garbage_collector_finds_the_iterator():
    class Ring:
        me: Any
        iterator: Iterator[Any]

    ring = Ring()
    ring.me, ring.iterator = ring, iter(endless())
    next(ring.iterator)
    del ring
    gc.collect()
    assert threads() == []


def test_the_threads_of_a_whole_chain_end():
    stream = endless().map(dict).prefetch().zip(endless()).take(50)
    for _ in stream:
        assert len(threads()) == 3
        break
    assert threads() == []


def test_restoring_ends_the_thread_of_the_old_position():
    stream = endless()
    iterator = iter(stream)
    next(iterator)
    stream.restore(endless().state())
    assert threads() == []
    assert int(next(iterator)["n"]) == 0
    del iterator


def test_a_source_that_hangs_does_not_hang_the_consumer_for_long():
    release = threading.Event()

    def hang(number: int) -> Any:
        if number == 1:
            release.wait(20)
        return example(number)

    begun = time.monotonic()
    for _ in from_function(hang).prefetch():
        break
    assert time.monotonic() - begun < 10
    release.set()
    assert wait_until(lambda: threads() == [])


def run(code: str, timeout: float = 300) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_threads_do_not_keep_the_interpreter_alive_whether_busy_or_asleep():
    code = """
        import time, numpy as np
        from toolshed.data import from_function
        def start(doing):
            iterator = iter(from_function(doing).map(lambda x: {"x": x}).prefetch())
            next(iterator)
            return iterator
        busy = start(lambda n: np.zeros((200, 200)))
        asleep = start(lambda n: time.sleep(0 if n == 0 else 3600))
        print("done")
    """
    begun = time.monotonic()
    assert run(code) == "done\n"
    assert time.monotonic() - begun < 200  # the source sleeps for an hour


# --- the channel ------------------------------------------------------------------------------------


def test_a_channel_gives_what_was_put_before_its_end_and_before_its_error():
    channel = Channel(5)
    assert channel.put(1)
    assert channel.put(2)
    channel.end(DataError("no more"))
    taken: list[int] = []
    with pytest.raises(DataError, match="no more"):
        taken.extend(channel)
    assert taken == [1, 2]


def test_a_full_channel_lets_its_producer_go_when_it_is_closed():
    channel, results = Channel(1), []
    producer = threading.Thread(target=lambda: results.extend(channel.put(n) for n in range(2)))
    producer.start()
    assert wait_until(lambda: results == [True])
    channel.close()
    producer.join(10)
    assert results == [True, False]
