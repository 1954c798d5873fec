"""Time in which a trial is not let run, told from what it waits for and from what it computes itself."""

import asyncio
import time

import pytest

from lab.scenario.punctuality import Punctuality


async def lateness(work):
    """Return what is noted around some work, in seconds; how long that took, and how much of it was computing."""
    began, used = time.monotonic(), time.process_time()
    punctuality = Punctuality()
    await work()
    late = punctuality.late
    punctuality.close()
    return late, time.monotonic() - began, time.process_time() - used


async def asleep():
    time.sleep(0.5)  # as a process that is stopped


async def waiting():
    await asyncio.sleep(0.5)


async def computing():
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass


async def asleep_in_pieces():
    for _ in range(3):
        time.sleep(0.3)
        await asyncio.sleep(0)


@pytest.mark.parametrize(("work", "seconds"), [(asleep, 0.4), (asleep_in_pieces, 0.6)])
def test_what_keeps_it_from_running_counts(work, seconds):
    late, took, used = asyncio.run(lateness(work))
    assert seconds - 0.05 <= late <= took - used + 0.05


def test_what_it_waits_for_does_not_count():
    late, took, _used = asyncio.run(lateness(waiting))
    assert late <= took - 0.5 + 0.05


def test_what_it_computes_does_not_count():
    late, took, used = asyncio.run(lateness(computing))
    assert late <= took - used + 0.05
