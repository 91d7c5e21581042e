"""Speech as it comes in, captions out: partial ones while somebody speaks, a final one when he has paused."""

from collections import deque
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from glmasr.decoding.streaming import Greedy
from glmasr.frontend.gain import GainState
from glmasr.frontend.pieces import LEAD_FRAMES, LEAST_SECONDS, SHORT_PROBABILITY, SHORT_SECONDS
from glmasr.frontend.vad import FRAME_SAMPLES, FRAME_SECONDS, VadState, speech_probabilities
from glmasr.speech import RATE_HZ, InputError, Segment
from glmasr.transcriber import FRAME_SECONDS as ENCODER_FRAME_SECONDS
from glmasr.transcriber import Stream, Transcriber, moved

ONSET, OFFSET = 0.5, 0.35
"""Probabilities of speech at which it begins and ends, Silero's own."""
PREROLL_SECONDS, TAIL_SECONDS = 0.25, 0.25
"""What is heard before speech is sure, and what the final pass hears behind it: models are trained on clips that are
cut more closely than a stream pauses."""
HASTY_SHARE, HASTY_SECONDS = 2 / 3, 0.2
"""From this share of the longest segment on, so short a pause ends it."""


@dataclass(frozen=True)
class Caption:
    """What is heard of one stretch of speech so far; times in seconds since the stream began.

    Of a partial caption `stable_text` stands in every later partial one too, all but its last word. The final one may
    still mend it.
    """

    segment: Segment
    is_final: bool
    stable_text: str
    language: str = ""


@dataclass
class Stretch:
    """Speech that goes on: its samples, how much of it is speech, how long the pause it is in, and what is heard."""

    start_sample: int
    stream: Stream
    samples: list[np.ndarray]
    fed: int = 0
    spoken_seconds: float = 0.0
    peak: float = 0.0
    paused_seconds: float = 0.0
    heard: Greedy = field(default_factory=Greedy)
    shown: str = ""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return sum(map(len, self.samples)) / RATE_HZ

    @property
    def is_speech(self) -> bool:
        """As `pieces` decides it: a click is none."""
        return self.spoken_seconds >= SHORT_SECONDS or (
            self.spoken_seconds >= LEAST_SECONDS and self.peak >= SHORT_PROBABILITY
        )


def checked(samples: np.ndarray) -> np.ndarray:
    """The same as float32 (N); InputError where one block of them would spoil all that follow."""
    found = np.asarray(samples)
    if found.ndim != 1:
        raise InputError(
            f"a live stream has one channel, not samples of shape {found.shape}: send them one after another"
        )
    if found.dtype.kind != "f":
        raise InputError(f"live samples are floats in -1 … 1, not {found.dtype}: divide 16-bit ones by 32768")
    if not np.isfinite(found).all():
        raise InputError("live samples hold NaN or infinity: leave that block out")
    return found.astype(np.float32)


class LiveTranscriber:
    """One stream of 16 kHz mono samples. Any number of streams may share a Transcriber: all they remember is here.

    Partial captions come every `chunk_seconds`, from chunks that see `left_seconds` of the past (None: all of the
    stretch). A pause of `endpoint_seconds` ends a stretch of speech, as `longest_seconds` does. With `rescoring` the
    final text is what the transcriber's own search finds in the whole stretch, which costs one more pass of the
    encoder and waits for nothing; a model hears a whole better than its chunks.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        chunk_seconds: float = 0.64,
        left_seconds: float | None = None,
        endpoint_seconds: float = 0.8,
        longest_seconds: float = 30.0,
        rescoring: bool = True,
    ):
        self.chunk_frames = round(chunk_seconds / ENCODER_FRAME_SECONDS) if isfinite(chunk_seconds) else 0
        if self.chunk_frames < 1 or abs(self.chunk_frames * ENCODER_FRAME_SECONDS - chunk_seconds) > 1e-6:
            raise InputError(f"chunk_seconds={chunk_seconds:g} is no multiple of 0.04: choose 0.16, 0.32, 0.64 or 1.28")
        if not (endpoint_seconds > 0 and longest_seconds >= SHORT_SECONDS):
            raise InputError(
                f"endpoint_seconds={endpoint_seconds:g} and longest_seconds={longest_seconds:g} hold no word: "
                f"choose more than 0 and at least {SHORT_SECONDS:g}"
            )
        self.left_chunks = None if left_seconds is None else max(0, round(left_seconds / chunk_seconds))
        self.transcriber = transcriber
        self._begin()  # what cannot stream says so now
        self.endpoint_seconds, self.longest_seconds, self.rescoring = endpoint_seconds, longest_seconds, rescoring
        _, self.vad = speech_probabilities(np.zeros(LEAD_FRAMES * FRAME_SAMPLES, np.float32), VadState())
        self.level = GainState()
        self.rest = np.zeros(0, np.float32)
        self.position = 0
        self.before: deque[np.ndarray] = deque(maxlen=round(PREROLL_SECONDS / FRAME_SECONDS))
        self.stretch: Stretch | None = None

    def hear(self, samples: np.ndarray) -> list[Caption]:
        """Captions that these samples (N, any number) bring about, in order; often none.

        InputError for what are no samples in -1 … 1 of one channel; the stream goes on as if they had not come.
        """
        waiting = np.concatenate([self.rest, checked(samples)])
        whole = len(waiting) // FRAME_SAMPLES * FRAME_SAMPLES
        self.rest = waiting[whole:]
        return self._through(waiting[:whole])

    def finish(self) -> list[Caption]:
        """The captions still due; the stream is at its end."""
        rest, self.rest = self.rest, self.rest[:0]
        if len(rest) and self.stretch is not None:
            # Only the voice detector may hear the zeros that fill its frame: to the encoder they would be sound.
            rest, probabilities = self._perceive(rest, last=True)
            self.stretch.samples.append(rest)
            self._note(self.stretch, float(probabilities[0]))
        return self._partial() + self._end()

    def _through(self, samples: np.ndarray) -> list[Caption]:
        captions: list[Caption] = []
        samples, probabilities = self._perceive(samples)
        for probability, frame in zip(probabilities.tolist(), samples.reshape(-1, FRAME_SAMPLES), strict=True):
            self.position += FRAME_SAMPLES
            if self.stretch is None and probability >= ONSET:
                held = [*self.before, frame]
                start = self.position - FRAME_SAMPLES * len(held)
                self.stretch = Stretch(start, self._begin(), held)
                self.before.clear()
            elif self.stretch is None:
                self.before.append(frame)
                continue
            else:
                self.stretch.samples.append(frame)
            self._note(self.stretch, probability)
            if self._is_over(self.stretch):
                captions += self._partial() + self._end()
        return captions + self._partial()

    def _perceive(self, samples: np.ndarray, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Whole frames of samples (N) as the model hears them, lifted if that is asked for; and how probably speech."""
        gain = self.transcriber.gain
        if gain is None:
            probabilities, self.vad = speech_probabilities(samples, self.vad, last)
            return samples, probabilities
        heard, self.level = gain.for_detector(samples, self.level)
        probabilities, self.vad = speech_probabilities(heard, self.vad, last)
        samples, self.level = gain.step(samples, probabilities, self.level)
        return samples, probabilities

    def _begin(self) -> Stream:
        return self.transcriber.stream(self.chunk_frames, self.left_chunks)

    def _note(self, stretch: Stretch, probability: float) -> None:
        stretch.peak = max(stretch.peak, probability)
        stretch.spoken_seconds += FRAME_SECONDS * (probability >= ONSET)
        stretch.paused_seconds = 0.0 if probability >= OFFSET else stretch.paused_seconds + FRAME_SECONDS

    def _is_over(self, stretch: Stretch) -> bool:
        hasty = stretch.seconds >= HASTY_SHARE * self.longest_seconds
        pause = min(HASTY_SECONDS, self.endpoint_seconds) if hasty else self.endpoint_seconds
        return stretch.paused_seconds >= pause or stretch.seconds >= self.longest_seconds

    def _listen(self, stretch: Stretch, last: bool = False) -> None:
        fresh = np.concatenate([*stretch.samples[stretch.fed :], np.zeros(0, np.float32)])
        stretch.fed = len(stretch.samples)
        stretch.heard = stretch.heard.extended(stretch.stream.hear(fresh, last))

    def _partial(self) -> list[Caption]:
        stretch = self.stretch
        if stretch is None:
            return []
        self._listen(stretch)
        found = stretch.heard.found
        starts = [i for i, token in enumerate(found.tokens) if self.transcriber.tokenizer.starts_word(token)]
        settled = stretch.heard.settled(starts[-1] if starts else 0)
        text = self.transcriber.tokenizer.decode(found.tokens).strip()
        if not stretch.is_speech or not text or text == stretch.shown:
            return []
        stretch.shown = text
        return [self._caption(stretch, self.transcriber.segment(found, stretch.seconds), found.tokens, settled.tokens)]

    def _end(self) -> list[Caption]:
        stretch, self.stretch = self.stretch, None
        if stretch is None or not stretch.is_speech:
            return []
        waveform = np.concatenate(stretch.samples)
        if self.rescoring:
            pause = max(0.0, stretch.paused_seconds - TAIL_SECONDS)
            waveform = waveform[: len(waveform) - round(pause * RATE_HZ)]
            segment, language = self.transcriber.transcribe_pieces([waveform])[0]
        else:
            self._listen(stretch, last=True)
            found = stretch.heard.found
            segment = self.transcriber.segment(found, stretch.seconds, waveform)
            language = self.transcriber.tokenizer.language_of(found.tokens)
        return [self._final(stretch, segment, language)] if segment.text or stretch.shown else []

    def _caption(self, stretch: Stretch, segment: Segment, tokens: tuple[int, ...], stable: tuple[int, ...]) -> Caption:
        placed = moved(segment, stretch.start_sample / RATE_HZ)
        decode = self.transcriber.tokenizer.decode
        return Caption(placed, False, decode(stable).strip(), self.transcriber.tokenizer.language_of(tokens))

    def _final(self, stretch: Stretch, segment: Segment, language: str) -> Caption:
        placed = moved(segment, stretch.start_sample / RATE_HZ)
        whole = self.transcriber.transcript(stretch.seconds, [(placed, language)])
        return Caption(whole.segments[0], True, whole.text, whole.language)
