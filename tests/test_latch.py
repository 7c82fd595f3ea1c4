"""A latch wakes those who wait for it, and no interrupt of theirs breaks it."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time

from toolshed.latch import Latch


def test_it_is_set_once_and_for_everybody():
    latch = Latch()
    assert not latch.is_set()
    assert not latch.wait(0.01)
    came: list[bool] = []
    waiting = [threading.Thread(target=lambda: came.append(latch.wait())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    latch.set()
    latch.set()
    for thread in waiting:
        thread.join(5)
    assert came == [True] * 3
    assert latch.is_set()
    assert latch.wait(0)


def test_who_waits_is_woken_at_once():
    latch = Latch()
    threading.Timer(0.05, latch.set).start()
    start = time.monotonic()
    assert latch.wait(10)
    assert 0.04 < time.monotonic() - start < 5


def test_waiting_ends_when_the_time_is_over():
    start = time.monotonic()
    assert not Latch().wait(0.25)
    assert 0.2 < time.monotonic() - start < 5


def test_interrupts_of_who_waits_keep_no_other_thread_from_setting_it():
    draw, came, problems = random.Random(0), 0, []
    tasks: queue.SimpleQueue[Latch | None] = queue.SimpleQueue()

    def interrupt_and_set() -> None:
        while (latch := tasks.get()) is not None:
            time.sleep(draw.uniform(0, 0.003))
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(draw.uniform(0, 0.0003))
            try:
                latch.set()
            except BaseException as error:
                problems.append(error)

    thread = threading.Thread(target=interrupt_and_set)
    thread.start()
    for _ in range(200):
        latch = Latch()
        try:
            tasks.put(latch)
            while True:
                latch.wait(0.001)
        except KeyboardInterrupt:
            came += 1
        assert latch.wait(5)
    tasks.put(None)
    thread.join(5)
    assert not thread.is_alive()
    assert (came, problems) == (200, [])
