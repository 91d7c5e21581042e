"""Recordings of many people at once in, their transcripts out: one thread, one model, and a fair turn for each.

A long recording is heard piece by piece, and the pieces of all who wait are heard by turns, some of them together: a
short one is not kept waiting by a long one, and what is heard is what would be heard alone.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from glmasr.speech import RATE_HZ, Segment, Transcript
from glmasr.transcriber import Piece, Transcriber

BATCH_PIECES = 16
END = object()


@dataclass
class Recording:
    """What is still to be heard of one, what has been, who waits for the whole, and who for each part of it."""

    transcriber: Transcriber
    duration_seconds: float
    pieces: Iterator[Piece]
    tell: Callable[[Transcript], object] | None = None
    found: list[tuple[Segment, str]] = field(default_factory=list)
    future: Future = field(default_factory=Future)

    @property
    def transcript(self) -> Transcript:
        """Of what has been heard so far."""
        return self.transcriber.transcript(self.duration_seconds, self.found)


class Turns:
    """The thread that runs the model: errands first, in their order, then pieces of recordings by turns.

    At most about `batch_seconds` of audio are heard at a time, since errands, live captions among them, wait for that.
    """

    def __init__(self, batch_seconds: float):
        self.batch_samples = batch_seconds * RATE_HZ
        self.errands: deque[tuple[Future, Callable[[], Any]]] = deque()
        self.recordings: deque[Recording] = deque()
        self.changed = threading.Condition()
        self.is_closed = False
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)
        self.thread.start()

    def run(self, errand: Callable[[], Any]) -> Future:
        """Do something short, next; what it returns or raises is the future's."""
        future: Future = Future()
        with self.changed:
            self.errands.append((future, errand))
            self.changed.notify()
        return future

    def hear(self, recording: Recording) -> Future:
        """The transcript of a recording, once it had all its turns; a future that is cancelled gets no more of them."""
        with self.changed:
            self.recordings.append(recording)
            self.changed.notify()
        return recording.future

    def close(self) -> None:
        """End the thread after what it is at; what still waits is cancelled."""
        with self.changed:
            self.is_closed = True
            self.changed.notify()
        self.thread.join()
        for future in [*(future for future, _ in self.errands), *(one.future for one in self.recordings)]:
            future.cancel()

    def _work(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """One errand or turn, of which nothing is kept while the next is waited for; False at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.is_closed or self.errands or self.recordings)
            if self.is_closed:
                return False
            errand = self.errands.popleft() if self.errands else None
        if errand:
            _settle(*errand)
        else:
            self._turn()
        return True

    def _turn(self) -> None:
        dealt, over = self._deal()
        try:
            _hear(dealt)
        except Exception:  # one of them is to blame: by themselves, the others are heard
            for one in dealt:
                _settle_if_broken(one[0], lambda one=one: _hear([one]))
        for recording in {id(one): one for one, _ in dealt}.values():
            if (tell := recording.tell) and not recording.future.done():
                _settle_if_broken(recording, lambda one=recording, tell=tell: tell(one.transcript))
        for recording in over:
            _settle(recording.future, lambda recording=recording: recording.transcript)

    def _deal(self) -> tuple[list[tuple[Recording, Piece]], list[Recording]]:
        """Pieces to hear together, one of each recording in turn and again while they are few; recordings now over."""
        dealt: list[tuple[Recording, Piece]] = []
        over, samples, transcriber = [], 0, self.recordings[0].transcriber
        while len(dealt) < BATCH_PIECES and samples < self.batch_samples:
            recording = self._next_of(transcriber)
            if recording is None:
                break
            piece = _settle_if_broken(recording, lambda recording=recording: next(recording.pieces, END))
            if piece is END:
                over.append(recording)
            elif piece is not None:
                self.recordings.append(recording)
                dealt.append((recording, piece))
                samples += len(piece[2])
        return dealt, over

    def _next_of(self, transcriber: Transcriber) -> Recording | None:
        with self.changed:
            for recording in [one for one in self.recordings if one.transcriber is transcriber]:
                self.recordings.remove(recording)
                if not recording.future.done():
                    return recording
        return None


def _hear(dealt: list[tuple[Recording, Piece]]) -> None:
    """Add what is heard in pieces to their recordings; all of one transcriber."""
    if dealt:
        pieces = [(i, start, waveform) for i, (_, (_, start, waveform)) in enumerate(dealt)]
        heard = list(dealt[0][0].transcriber.hear(pieces))
        for i, segment, language in heard:
            dealt[i][0].found.append((segment, language))


def _settle_if_broken(recording: Recording, step: Callable[[], Any]) -> Any:
    """What a step returns; where it raises, its recording is over with that, and None."""
    try:
        return step()
    except Exception as error:
        if not recording.future.done() and recording.future.set_running_or_notify_cancel():
            recording.future.set_exception(error)
        return None


def _settle(future: Future, errand: Callable[[], Any]) -> None:
    if future.done() or not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(errand())
    except Exception as error:
        future.set_exception(error)
