"""A bundle and waveforms in, transcripts out: the one door to recognition for people, programs and the benchmark."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from glmasr.build import check_names
from glmasr.decoding.align import align, frames_needed, word_times
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.decoding.search import SEARCHES, Search, by_name, open_search, rows_of
from glmasr.exported import Exported, is_exported, without
from glmasr.frontend.audio import read_blocks
from glmasr.frontend.gain import gain_of, lifted, lifted_for_detector
from glmasr.frontend.pieces import Course, listen, pieces_of, take
from glmasr.frontend.pieces import Piece as Place
from glmasr.frontend.vad import VERSION as VAD_VERSION
from glmasr.speech import FRAME_SECONDS, RATE_HZ, InputError, Segment, Transcript, Word
from glmasr.text.normalize import base_language
from glmasr.text.tokenizer import SPECIAL, Tokenizer
from glmasr.text.written import joined, written

if TYPE_CHECKING:  # torch is imported where a bundle is opened: an export is heard without it, and a second sooner
    from glmasr.bundle import Bundle
    from glmasr.model.recognizer import Heard, Recognizer

PIECE_SECONDS, LEAST_PIECE_SECONDS, PIECE_UTTERANCES = 30.0, 4.0, 2.0
"""Longer recordings are cut in pauses into pieces of at most this length, so memory stays bounded; of at most so many
times the mean utterance of the training, if that is less: what never heard a long one loses words in it."""
BATCH_SECONDS, ENOUGH_SECONDS, ALIKE = 120.0, 15.0, 0.8
"""Padded audio of a batch at most; and once it holds ENOUGH, what is shorter than ALIKE of its longest waits for the
next: padding costs more than a batch does, beyond ENOUGH (docs/LOG.md)."""
POOL_SECONDS = 600.0
"""So much of a file is held at a time, to batch pieces of like length."""
BLOCK_SECONDS = 60.0
NEVER = -1e4
"""A logit so low that its token is never chosen, and finite, as sums over paths ask."""

Piece = tuple[int, float, np.ndarray]
"""Which recording it is of, where it starts there in seconds, and the waveform."""


@dataclass(frozen=True)
class Streaming:
    """What live captions would find, all at once: a search in what was heard chunk by chunk, of 40 ms frames.

    Frames see their own chunk and `left_chunks` before it, None: all.
    """

    chunk_frames: int = 16
    left_chunks: int | None = None
    search: str | Mapping[str, Any] = "ctc_greedy"

    def __post_init__(self):
        if self.chunk_frames < 1 or (self.left_chunks is not None and self.left_chunks < 0):
            raise InputError("a chunk has 1 frame or more, and left_chunks is 0 or more, or null for all")


class Stream(Protocol):
    """One recording that comes bit by bit; it remembers what it has heard of it."""

    def hear(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Log-probabilities (T, V) of the frames of every chunk that these samples (N) complete; `last` ends it."""
        ...


DECODINGS: dict[str, type] = {**SEARCHES, "streaming": Streaming}
"""What `decoding` may be by name."""


class Transcriber:
    """A `System` made of a bundle, or of what `glmasr export --format onnx` made of one, which needs no torch.

    `decoding` is one of DECODINGS, with its defaults or as {name: joint, ctc_weight: 0.5}, or a config with `_target_`
    (conf/decoding/*.yaml). `language` says what is spoken, None lets a bundle with language tags tell. With `vad` only
    pieces with speech are heard.
    `script` ("traditional", "simplified") and `numerals` are as in `written`; None and False leave the text alone.
    With `gain` the voice detector hears quiet speech as loud speech. The model hears it as it is, since its ear takes
    the level out and a gain that moves costs words (benchmarks/gain.py); with {slope: 1.0} it hears it lifted, too.
    With `offload` a model larger than the device's memory runs: its blocks' weights stay in main memory.
    """

    def __init__(
        self,
        bundle: str,
        name: str | None = None,
        decoding: str | Mapping[str, Any] = "ctc_greedy",
        device: str = "cpu",
        language: str | None = None,
        vad: bool = True,
        script: str | None = None,
        numerals: bool = False,
        gain: bool | Mapping[str, Any] = False,
        offload: bool = False,
    ):
        if offload and device == "cpu":
            raise InputError("offload keeps weights in main memory, where device=cpu has them: leave it out")
        self.decoding = by_name(decoding, DECODINGS)
        self.name = name or Path(bundle).resolve().parent.name
        if is_exported(bundle):
            self._open_exported(Exported(bundle), device)
        else:
            self._open_bundle(bundle, device, offload)
        self.piece_seconds = piece_seconds_for(self.training)
        self.size_bytes = self.bundle.size_bytes
        self._choose(language, vad, script, numerals, gain)

    def _open_bundle(self, folder: str, device: str, offloads: bool) -> None:
        import torch

        from glmasr.bundle import open_bundle
        from glmasr.model.offload import offload
        from glmasr.model.recognizer import parameter_count

        streaming = streaming_of(self.decoding)
        self.view = view_of(streaming)
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].split(". ")[0]
            raise InputError(f"device '{device}' cannot be used here ({reason}): try device=cpu") from error
        self.bundle: Bundle | Exported = open_bundle(folder)
        recognizer = self.bundle.recognizer()
        recognizer = offload(recognizer, device) if offloads else recognizer.to(device)
        assert self.bundle.tokenizer is not None
        self.tokenizer = self.bundle.tokenizer
        self.ear = self.bundle.ear.to(device)
        search = open_search(streaming.search if streaming else self.decoding, recognizer, self.tokenizer)
        self.opened: tuple[Recognizer | None, Search] = (recognizer, search)
        self.device = torch.device(device)
        self.training = self.bundle.config["training"]
        self.parameters = parameter_count(recognizer)

    def _open_exported(self, exported: Exported, device: str) -> None:
        if device != "cpu":
            raise InputError(f"what was exported runs on the CPU: leave device={device} out, or give the bundle itself")
        self.bundle, self.tokenizer = exported, exported.tokenizer
        streaming = streaming_of(self.decoding)
        self.view = view_of(streaming)
        if streaming:
            _ = exported.streaming_session  # what is missing is said now
        self.opened = (None, open_search(streaming.search if streaming else self.decoding, None, self.tokenizer))
        self.training, self.parameters = exported.training, exported.parameters

    def _choose(
        self,
        language: str | None,
        vad: bool,
        script: str | None,
        numerals: bool,
        gain: bool | Mapping[str, Any],
    ) -> None:
        """Take what `variant` may change; InputError where something is wrong with the choice."""
        self.chosen = {"language": language, "vad": vad, "script": script, "numerals": numerals, "gain": gain}
        self.language = language or self.training.get("language", "")
        self.silenced = others(self.tokenizer, language) if language else []
        self.recognizer, self.search = self.opened
        if self.recognizer is not None and language:
            self.recognizer, self.search = speaking_only(self.recognizer, self.search, self.tokenizer, language)
        self.vad, self.gain = vad, gain_of(gain, slope=0.0)
        self.written = partial(written, script=script, numerals=numerals)
        self.written(Transcript("", 0.0))  # what is wrong with the choice is said now
        choices = [_as_found(self.decoding), language, VAD_VERSION if vad else None, script, numerals]
        choices += [vars(self.gain)] if self.gain else []
        self.fingerprint = f"{self.bundle.digest()}-{json.dumps(choices, ensure_ascii=False)}"

    def variant(
        self,
        *,
        language: str | None = None,
        vad: bool | None = None,
        script: str | None = None,
        numerals: bool | None = None,
        gain: bool | Mapping[str, Any] | None = None,
    ) -> "Transcriber":
        """The same bundle, opened once, with other choices; None is as here. Weights are shared, nothing is copied but
        the biases that `language` changes, and neither hears of the other. InputError as on opening.
        """
        asked = {"language": language, "vad": vad, "script": script, "numerals": numerals, "gain": gain}
        asked = {name: value for name, value in asked.items() if value is not None}
        other = copy.copy(self)
        other._choose(**{**self.chosen, **asked})
        return other

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """16 kHz mono waveforms → one transcript each, in their order. A waveform may be empty."""
        pieces: list[Piece] = []
        for i, waveform in enumerate(waveforms):
            places, found = self.find_pieces(lambda waveform=waveform: _blocks(waveform))[1:]
            pieces += [(i, start / RATE_HZ, piece) for (start, _), piece in zip(places, found, strict=True)]
        heard: list[list[tuple[Segment, str]]] = [[] for _ in waveforms]
        for i, segment, language in self.hear(pieces):
            heard[i].append((segment, language))
        durations = [len(waveform) / RATE_HZ for waveform in waveforms]
        return [self.transcript(*found) for found in zip(durations, heard, strict=True)]

    def transcribe_file(
        self, path: str, progress: Callable[[float], object] | None = None, channel: int | None = None
    ) -> Transcript:
        """A file of any length, rate and number of channels, read twice and never held as a whole.

        `progress` is told how many more seconds are done. `channel` and UnreadableAudio are as in `read_blocks`.
        """
        course, places, waveforms = self.find_pieces(lambda: read_blocks(path, BLOCK_SECONDS, channel=channel))
        pieces = ((0, start / RATE_HZ, piece) for (start, _), piece in zip(places, waveforms, strict=True))
        heard, done = [], 0.0
        for pool in pools(pieces):
            heard += [(segment, language) for _, segment, language in self.hear(pool)]
            if progress:
                reached = pool[-1][1] + len(pool[-1][2]) / RATE_HZ
                progress(reached - done)
                done = reached
        if progress:
            progress(course.samples / RATE_HZ - done)
        return self.transcript(course.samples / RATE_HZ, heard)

    def find_pieces(
        self, blocks: Callable[[], Iterable[np.ndarray]]
    ) -> tuple[Course, list[Place], Iterator[np.ndarray]]:
        """How a recording goes, where it is worth transcribing, and the waveforms there, lifted if that is asked for.

        `blocks` gives the recording block by block, and is called for it twice.
        """
        if self.gain is None:
            course = listen(blocks(), self.vad)
            places = pieces_of(course, self.piece_seconds)
            return course, places, take(blocks(), places)
        course = listen(lifted_for_detector(self.gain, blocks()))
        audible = course if self.vad else replace(course, speech=np.ones_like(course.speech))
        places = pieces_of(audible, self.piece_seconds)
        return course, places, take(lifted(self.gain, blocks(), course.speech), places)

    def hear(self, pieces: list[Piece]) -> Iterator[tuple[int, Segment, str]]:
        """Whose it is, a segment with times in its recording, and the language named, of each piece that says a thing.

        They come in the order of batches, the longest first.
        """
        for batch in batches(pieces):
            found = self.transcribe_pieces([piece for _, _, piece in batch])
            for (i, start, _), (segment, language) in zip(batch, found, strict=True):
                if segment.text:
                    yield i, moved(segment, start), language

    def transcript(self, duration_seconds: float, found: Iterable[tuple[Segment, str]]) -> Transcript:
        """Segments with the languages they name, joined; the language is what most seconds of them are in."""
        found = sorted(found, key=lambda one: one[0].start_seconds)
        segments = tuple(segment for segment, _ in found)
        seconds: dict[str, float] = {}
        for segment, language in found:
            seconds[language] = seconds.get(language, 0.0) + segment.end_seconds - segment.start_seconds
        seconds.pop("", None)
        language = max(seconds, key=seconds.__getitem__, default=self.language)
        text = joined([segment.text for segment in segments])
        return self.written(Transcript(text, duration_seconds, segments, language))

    def encode(self, pieces: list[np.ndarray]) -> "Heard":
        """What the recognizer makes of waveforms, as a batch; under the chunk mask if it is told to stream."""
        import torch

        from glmasr.model.packing import packing_of
        from glmasr.model.subsampling import STRIDE

        assert self.recognizer is not None
        lengths = torch.tensor([len(piece) for piece in pieces])
        waveform = torch.zeros(len(pieces), int(lengths.max()))
        for row, piece in zip(waveform, pieces, strict=True):
            row[: len(piece)] = torch.from_numpy(piece)
        chunk = {"chunk_features": STRIDE * self.view["chunk_frames"]} if self.view else {}
        with torch.inference_mode():
            features, feature_lengths = self.ear(waveform.to(self.device), lengths.to(self.device), **chunk)
            frames, frame_lengths = self.recognizer.encoder.subsample(features, feature_lengths)
            packing = packing_of(frame_lengths.tolist(), frames.shape[1]).to(self.device)
            context = self.recognizer.encoder.contextualize(frames, frame_lengths, packing=packing, **self.view)
            return self.recognizer.hear(context, frame_lengths)

    @property
    def can_stream(self) -> bool:
        """Whether it hears recordings that come bit by bit."""
        return not isinstance(self.bundle, Exported) or self.bundle.can_stream

    def stream(self, chunk_frames: int, left_chunks: int | None = None) -> Stream:
        """A recording about to begin, in chunks of 40 ms frames that see `left_chunks` before them, None: all.

        InputError where an export hears whole recordings only.
        """
        if isinstance(self.bundle, Exported):
            return Silenced(self.bundle.stream(chunk_frames, left_chunks), self.silenced)
        from glmasr.model import streaming

        assert self.recognizer is not None
        return streaming.Stream(self.recognizer, self.ear, chunk_frames, left_chunks)

    def find(self, pieces: list[np.ndarray]) -> tuple[list[np.ndarray], list[list[Hypothesis]]]:
        """Log-probabilities (T, V) of the tokens in each piece, and the hypotheses of each."""
        if isinstance(self.bundle, Exported):
            if self.view:
                rows = [self.stream(**self.view).hear(piece, last=True) for piece in pieces]
            else:
                rows = [without(row, self.silenced) for row in self.bundle.log_probs(pieces)]
            return rows, self.search.find(rows)  # type: ignore[attr-defined]
        import torch

        with torch.inference_mode():
            heard = self.encode(pieces)
            return rows_of(heard), self.search(heard)

    def transcribe_pieces(self, pieces: list[np.ndarray]) -> list[tuple[Segment, str]]:
        """One segment per piece, times counted from the piece's start, and the language it names, "" without."""
        rows, hypotheses = self.find(pieces)
        found = []
        for row, piece, ranked in zip(rows, pieces, hypotheses, strict=True):
            best = timed(ranked[0], row)
            found.append((self.segment(best, len(piece) / RATE_HZ, piece), self.tokenizer.language_of(best.tokens)))
        return found

    def segment(self, hypothesis: Hypothesis, duration_seconds: float, waveform: np.ndarray | None = None) -> Segment:
        """Text of a hypothesis with its words' times, where the search knows them; else the whole piece's."""
        text = self.tokenizer.decode(hypothesis.tokens).strip()
        words = tuple(self.words(hypothesis, duration_seconds, waveform)) if hypothesis.starts else ()
        start = words[0].start_seconds if words else 0.0
        end = words[-1].end_seconds if words else duration_seconds
        return Segment(text, start, end, words)

    def words(self, hypothesis: Hypothesis, duration_seconds: float, waveform: np.ndarray | None = None) -> list[Word]:
        """Tokens gathered into words, as sure as the least sure of their tokens; times as in `word_times`."""
        decode = self.tokenizer.decode
        groups: list[list[int]] = []
        for i, token in enumerate(hypothesis.tokens):
            if not groups or self.tokenizer.starts_word(token):
                groups.append([])
            groups[-1].append(i)
        spoken = [[i for i in group if decode([hypothesis.tokens[i]]).strip()] for group in groups]
        spoken = [group for group in spoken if group]
        frames = [(hypothesis.starts[group[0]], hypothesis.ends[group[-1]]) for group in spoken]
        seconds = [(start * FRAME_SECONDS, end * FRAME_SECONDS) for start, end in frames]
        times = word_times(seconds, duration_seconds, waveform)
        return [
            Word(
                decode([hypothesis.tokens[i] for i in group]).strip(),
                *time,
                min(hypothesis.confidences[i] for i in group),
            )
            for group, time in zip(spoken, times, strict=True)
        ]


@dataclass(frozen=True)
class Silenced:
    """A stream in which some tokens cannot be."""

    stream: Stream
    tokens: Sequence[int]

    def hear(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """As the stream, without them."""
        return without(self.stream.hear(samples, last), self.tokens)


def piece_seconds_for(training: Mapping[str, Any]) -> float:
    """How long pieces may be for a bundle, by what its config says of its training."""
    minutes, utterances = training.get("labelled_minutes"), training.get("utterances")
    if not minutes or not utterances:
        return PIECE_SECONDS
    return min(max(PIECE_UTTERANCES * 60 * minutes / utterances, LEAST_PIECE_SECONDS), PIECE_SECONDS)


def timed(hypothesis: Hypothesis, log_probs: np.ndarray) -> Hypothesis:
    """The same with the frames and confidences of its tokens, by forced alignment to `log_probs` (T, V).

    A text too long for its frames, as only an attention decoder writes it, stays without.
    """
    if not hypothesis.tokens or frames_needed(hypothesis.tokens) > len(log_probs):
        return replace(hypothesis, starts=(), ends=(), confidences=())
    return replace(hypothesis, **vars(align(log_probs, hypothesis.tokens)))


def others(tokenizer: Tokenizer, language: str) -> list[int]:
    """The tags of all other languages; none where there are no tags.

    InputError where there are, and none of them is its own.
    """
    tags = {token: tokenizer.language_of([token]) for token in range(SPECIAL, tokenizer.size)}
    tags = {token: named for token, named in tags.items() if named}
    base = base_language(language)
    if tags and base not in tags.values():
        raise InputError(f"this bundle knows no '{language}': choose one of {', '.join(sorted(tags.values()))}")
    return [token for token, named in tags.items() if named != base]


def only_language(recognizer: "Recognizer", tokenizer: Tokenizer, language: str) -> None:
    """Make a recognizer never name another language, in place; InputError as from `others`."""
    silenced = others(tokenizer, language)
    for head in (recognizer.ctc, *([recognizer.decoder.project] if recognizer.decoder is not None else [])):
        head.bias.data[silenced] = NEVER


def speaking_only(
    recognizer: "Recognizer", search: Search, tokenizer: Tokenizer, language: str
) -> tuple["Recognizer", Search]:
    """As `only_language`, another recognizer and a search in it: they share all but the biases of the heads."""
    own = {id(recognizer.ctc.bias), id(recognizer.decoder.project.bias) if recognizer.decoder is not None else 0}
    tensors = [part for part in (*recognizer.parameters(), *recognizer.buffers()) if id(part) not in own]
    shared = [*tensors, tokenizer, getattr(search, "guide", None)]
    recognizer, search = copy.deepcopy((recognizer, search), {id(part): part for part in shared})
    only_language(recognizer, tokenizer, language)
    return recognizer, search


def pools(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces in their order, in lists that are full once they hold POOL_SECONDS."""
    pool: list[Piece] = []
    for piece in pieces:
        pool.append(piece)
        if sum(len(waveform) for _, _, waveform in pool) >= POOL_SECONDS * RATE_HZ:
            yield pool
            pool = []
    if pool:
        yield pool


def batches(pieces: list[Piece]) -> list[list[Piece]]:
    """Pieces of like length together, at most BATCH_SECONDS of padded audio each."""
    grouped: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece[2])):
        longest, padded = (len(grouped[-1][0][2]), len(grouped[-1]) * len(grouped[-1][0][2])) if grouped else (0, 0)
        is_full = padded + longest > BATCH_SECONDS * RATE_HZ
        if not grouped or is_full or (padded >= ENOUGH_SECONDS * RATE_HZ and len(piece[2]) < ALIKE * longest):
            grouped.append([])
        grouped[-1].append(piece)
    return grouped


def moved(segment: Segment, seconds: float) -> Segment:
    """The same segment `seconds` later."""
    words = tuple(Word(w.text, w.start_seconds + seconds, w.end_seconds + seconds, w.confidence) for w in segment.words)
    start, end = segment.start_seconds + seconds, segment.end_seconds + seconds
    return replace(segment, start_seconds=start, end_seconds=end, words=words)


def _blocks(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """Views of the waveform, so that what listens makes no copy of the whole."""
    size = int(BLOCK_SECONDS * RATE_HZ)
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


def streaming_of(decoding: str | Mapping[str, Any]) -> Streaming | None:
    """Streaming, where `decoding` asks for it by name or as a config; None where it asks for a search."""
    if isinstance(decoding, str):
        return Streaming() if decoding == "streaming" else None
    if decoding.get("_target_") != f"{__name__}.{Streaming.__name__}":
        return None
    settings = {name: value for name, value in decoding.items() if name != "_target_"}
    check_names(Streaming, settings, "decoding=streaming")
    return Streaming(**settings)


def view_of(streaming: Streaming | None) -> dict[str, Any]:
    """What `contextualize` is told of chunks."""
    return {"chunk_frames": streaming.chunk_frames, "left_chunks": streaming.left_chunks} if streaming else {}


def _as_found(value: Any) -> Any:
    """A setting as JSON; of a file that is named also when it was written, as what is in it counts."""
    if isinstance(value, Mapping):
        return {key: _as_found(one) for key, one in value.items()}
    if isinstance(value, str) and Path(value).is_file():
        return [value, Path(value).stat().st_mtime_ns]
    return list(value) if isinstance(value, tuple) else value
