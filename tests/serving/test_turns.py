"""Recordings of many people: each is heard as if alone, none waits for a long one, none is lost, a broken one is."""

import threading

import numpy as np
import pytest

from glmasr.serving.turns import BATCH_PIECES, Recording, Turns
from glmasr.speech import RATE_HZ, Segment, Transcript
from tests.serving.served import wait_for


class Reader:
    """A transcriber of pieces that hold one number each; it remembers what it heard together."""

    def __init__(self):
        self.batches: list[list[int]] = []
        self.may = threading.Event()

    def hear(self, pieces):
        assert self.may.wait(20)
        numbers = [int(waveform[0]) for _, _, waveform in pieces]
        self.batches.append(numbers)
        if 666 in numbers:
            raise RuntimeError("out of memory")
        for which, start, waveform in reversed(pieces):
            yield which, Segment(str(int(waveform[0])), start, start + 1), ""

    def transcript(self, duration_seconds, found):
        ordered = sorted(found, key=lambda one: one[0].start_seconds)
        return Transcript(" ".join(segment.text for segment, _ in ordered), duration_seconds)


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def turns():
    made = Turns(batch_seconds=3.0)
    yield made
    made.close()


def of(reader, numbers, tell=None, seconds=1.0):
    pieces = ((0, float(i), np.full(round(seconds * RATE_HZ), number)) for i, number in enumerate(numbers))
    return Recording(reader, float(len(numbers)), pieces, tell)


def test_a_short_recording_does_not_wait_for_a_long_one(turns, reader):
    long, short = of(reader, range(100, 140)), of(reader, [1, 2])
    order = []
    for recording in (long, short):
        recording.future.add_done_callback(lambda future: order.append(future.result().text[:3]))
        turns.hear(recording)
    reader.may.set()
    assert short.future.result(20) == Transcript("1 2", 2.0)
    assert long.future.result(20).text == " ".join(map(str, range(100, 140)))
    assert order == ["1 2", "100"]
    assert all(len(batch) <= 3 for batch in reader.batches)
    together = [batch for batch in reader.batches if 1 in batch or 2 in batch]
    assert any(len(batch) > 1 and max(batch) >= 100 for batch in together)


def test_many_short_ones_are_not_all_heard_at_once(turns, reader):
    turns.run(lambda: reader.may.wait(20))
    futures = [turns.hear(of(reader, [number], seconds=0.01)) for number in range(BATCH_PIECES + 4)]
    reader.may.set()
    assert [future.result(20).text for future in futures] == [str(number) for number in range(BATCH_PIECES + 4)]
    assert [len(batch) for batch in reader.batches] == [BATCH_PIECES, 4]


def test_pieces_of_different_transcribers_are_not_heard_together(turns, reader):
    other = Reader()
    ours, theirs = of(reader, range(4)), of(other, range(50, 54))
    futures = [turns.hear(ours), turns.hear(theirs)]
    reader.may.set(), other.may.set()
    assert [future.result(20).text for future in futures] == ["0 1 2 3", "50 51 52 53"]
    assert max(map(max, reader.batches)) == 3 and min(map(min, other.batches)) == 50


def test_errands_come_before_any_turn(turns, reader):
    seen = []
    future = turns.hear(of(reader, range(30)))
    errand = turns.run(lambda: seen.append(len(reader.batches)))
    reader.may.set()
    errand.result(20), future.result(20)
    assert seen[0] <= 1 < len(reader.batches)
    assert turns.run(lambda: 7).result(20) == 7
    with pytest.raises(ZeroDivisionError):
        turns.run(lambda: 1 / 0).result(20)


def test_only_what_is_broken_fails(turns, reader):
    def torn():
        yield 0, 0.0, np.full(100, 9)
        raise OSError("the disk is gone")

    poisoned, sound = of(reader, [666, 666]), of(reader, [1, 2])
    cut = Recording(reader, 1.0, torn())
    empty = of(reader, [])
    turns.run(lambda: reader.may.wait(20))
    futures = [turns.hear(one) for one in (poisoned, sound, cut, empty)]
    reader.may.set()
    assert futures[1].result(20).text == "1 2" and {666, 1} <= set(reader.batches[0])
    with pytest.raises(RuntimeError, match="memory"):
        futures[0].result(20)
    with pytest.raises(OSError, match="disk"):
        futures[2].result(20)
    assert futures[3].result(20) == Transcript("", 0.0)
    assert turns.hear(of(reader, [5])).result(20).text == "5"


def test_what_nobody_waits_for_gets_no_more_turns(turns, reader):
    left, kept = of(reader, range(100)), of(reader, [500])
    turns.hear(left)
    turns.hear(kept)
    left.future.cancel()
    reader.may.set()
    assert kept.future.result(20).text == "500"
    wait_for(lambda: not turns.recordings)
    assert sum(map(len, reader.batches)) < 10


def test_who_listens_is_told_as_it_goes(turns, reader):
    told = []
    future = turns.hear(of(reader, range(7), told.append))
    reader.may.set()
    assert future.result(20).text == "0 1 2 3 4 5 6"
    assert [one.text for one in told] == ["0 1 2", "0 1 2 3 4 5", "0 1 2 3 4 5 6"]


def test_who_cannot_be_told_breaks_only_his_own(turns, reader):
    def deaf(_):
        raise RuntimeError("the loop is closed")

    futures = [turns.hear(of(reader, range(7), deaf)), turns.hear(of(reader, [50]))]
    reader.may.set()
    assert futures[1].result(20).text == "50"
    with pytest.raises(RuntimeError, match="loop"):
        futures[0].result(20)


def test_at_the_end_those_who_wait_are_told(reader):
    turns = Turns(3.0)
    reader.may.set()
    begun, blocked = threading.Event(), threading.Event()
    errand = turns.run(lambda: begun.set() or blocked.wait(20))
    assert begun.wait(20)
    waiting, recording = turns.run(lambda: 1), turns.hear(of(reader, [1]))
    threading.Timer(0.1, blocked.set).start()
    turns.close()
    assert errand.result(0) is True and waiting.cancelled() and recording.cancelled()
    assert not turns.thread.is_alive()
