"""A bundle and waveforms in, transcripts out: the one door to recognition for people, programs and the benchmark."""

from pathlib import Path

import numpy as np
import torch

from glmasr.bundle import open_bundle
from glmasr.decoding import attention, ctc
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.frontend.logmel import HOP_SAMPLES
from glmasr.model.recognizer import parameter_count
from glmasr.model.subsampling import STRIDE
from glmasr.speech import RATE_HZ, InputError, Segment, Transcript, Word

FRAME_SECONDS = STRIDE * HOP_SAMPLES / RATE_HZ
PIECE_SECONDS = 30.0
"""Longer recordings are cut at quiet places into pieces of at most this length, so memory stays bounded."""
BATCH_SECONDS = 120.0
SEARCHES = ("ctc_greedy", "attention")


class Transcriber:
    """A `System` made of a bundle. `decoding` is one of SEARCHES; `device` a torch device."""

    def __init__(self, bundle: str, name: str | None = None, decoding: str = "ctc_greedy", device: str = "cpu"):
        if decoding not in SEARCHES:
            raise InputError(f"decoding '{decoding}' is unknown: choose one of {', '.join(SEARCHES)}")
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].split(". ")[0]
            raise InputError(f"device '{device}' cannot be used here ({reason}): try device=cpu") from error
        self.bundle = open_bundle(bundle)
        self.recognizer = self.bundle.recognizer().to(device)
        self.ear = self.bundle.ear.to(device)
        if decoding == "attention" and self.recognizer.decoder is None:
            raise InputError(f"{bundle} was trained without an attention decoder: use decoding=ctc_greedy")
        self.decoding = decoding
        self.device = torch.device(device)
        self.name = name or Path(bundle).resolve().parent.name
        self.language = self.bundle.config["training"].get("language", "")
        self.parameters = parameter_count(self.recognizer)
        self.size_bytes = self.bundle.size_bytes
        self.fingerprint = f"{self.bundle.digest()}-{decoding}"

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """16 kHz mono waveforms → one transcript each, in their order. A waveform may be empty."""
        pieces = [(i, start, piece) for i, waveform in enumerate(waveforms) for start, piece in cut(waveform)]
        heard: list[list[tuple[Segment, str]]] = [[] for _ in waveforms]
        for batch in batches(pieces):
            found = self.transcribe_pieces([piece for _, _, piece in batch])
            for (i, start, _), (segment, language) in zip(batch, found, strict=True):
                if segment.text:
                    heard[i].append((moved(segment, start / RATE_HZ), language))
        return [self.transcript(waveform, found) for waveform, found in zip(waveforms, heard, strict=True)]

    def transcript(self, waveform: np.ndarray, found: list[tuple[Segment, str]]) -> Transcript:
        """Segments with the languages they name, joined; the language is what most seconds of them are in."""
        found = sorted(found, key=lambda one: one[0].start_seconds)
        text = " ".join(segment.text for segment, _ in found)
        seconds: dict[str, float] = {}
        for segment, language in found:
            seconds[language] = seconds.get(language, 0.0) + segment.end_seconds - segment.start_seconds
        seconds.pop("", None)
        language = max(seconds, key=seconds.__getitem__, default=self.language)
        return Transcript(text, len(waveform) / RATE_HZ, tuple(segment for segment, _ in found), language)

    @torch.inference_mode()
    def transcribe_pieces(self, pieces: list[np.ndarray]) -> list[tuple[Segment, str]]:
        """One segment per piece, times counted from the piece's start, and the language it names, "" without."""
        lengths = torch.tensor([len(piece) for piece in pieces])
        waveform = torch.zeros(len(pieces), int(lengths.max()))
        for row, piece in zip(waveform, pieces, strict=True):
            row[: len(piece)] = torch.from_numpy(piece)
        features, feature_lengths = self.ear(waveform.to(self.device), lengths.to(self.device))
        heard = self.recognizer(features, feature_lengths)
        if self.decoding == "attention" and self.recognizer.decoder is not None:
            found = attention.greedy(self.recognizer.decoder, heard.context, heard.lengths, heard.padding)
        else:
            scores, ends = heard.ctc_log_probs.cpu(), heard.lengths.tolist()
            found = [ctc.greedy(row[:end]) for row, end in zip(scores, ends, strict=True)]
        assert self.bundle.tokenizer is not None
        languages = [self.bundle.tokenizer.language_of(one.tokens) for one in found]
        segments = [self.segment(one, len(piece) / RATE_HZ) for one, piece in zip(found, pieces, strict=True)]
        return list(zip(segments, languages, strict=True))

    def segment(self, hypothesis: Hypothesis, duration_seconds: float) -> Segment:
        """Text of a hypothesis with its words' times, where the search knows them; else the whole piece's."""
        assert self.bundle.tokenizer is not None
        text = self.bundle.tokenizer.decode(hypothesis.tokens).strip()
        words = tuple(self.words(hypothesis, duration_seconds)) if hypothesis.starts else ()
        start = words[0].start_seconds if words else 0.0
        end = words[-1].end_seconds if words else duration_seconds
        return Segment(text, start, end, words)

    def words(self, hypothesis: Hypothesis, duration_seconds: float) -> list[Word]:
        """Tokens gathered into words, each from its first token's frame to its last token's."""
        tokenizer = self.bundle.tokenizer
        assert tokenizer is not None
        groups: list[list[int]] = []
        for i, token in enumerate(hypothesis.tokens):
            if not groups or tokenizer.starts_word(token):
                groups.append([])
            groups[-1].append(i)
        words = []
        for group in groups:
            spoken = [i for i in group if tokenizer.decode([hypothesis.tokens[i]]).strip()]
            if not spoken:
                continue
            text = tokenizer.decode([hypothesis.tokens[i] for i in spoken]).strip()
            start = hypothesis.starts[spoken[0]] * FRAME_SECONDS
            end = min(hypothesis.ends[spoken[-1]] * FRAME_SECONDS, duration_seconds)
            confidence = min(hypothesis.confidences[i] for i in spoken)
            words.append(Word(text, min(start, end), end, confidence))
        return words


def cut(waveform: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(start sample, piece) of at most PIECE_SECONDS, cut at the quietest 100 ms of each last third."""
    longest, window = int(PIECE_SECONDS * RATE_HZ), RATE_HZ // 10
    pieces, start = [], 0
    while len(waveform) - start > longest:
        tail = waveform[start + longest * 2 // 3 : start + longest]
        energy = np.square(tail[: len(tail) // window * window]).reshape(-1, window).sum(1)
        stop = start + longest * 2 // 3 + int(energy.argmin()) * window + window // 2
        pieces.append((start, waveform[start:stop]))
        start = stop
    if len(waveform) > start:
        pieces.append((start, waveform[start:]))
    return pieces


def batches(pieces: list[tuple[int, int, np.ndarray]]) -> list[list[tuple[int, int, np.ndarray]]]:
    """Pieces of like length together, at most BATCH_SECONDS of padded audio each."""
    grouped: list[list[tuple[int, int, np.ndarray]]] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece[2])):
        if not grouped or (len(grouped[-1]) + 1) * len(grouped[-1][0][2]) > BATCH_SECONDS * RATE_HZ:
            grouped.append([])
        grouped[-1].append(piece)
    return grouped


def moved(segment: Segment, seconds: float) -> Segment:
    """The same segment `seconds` later."""
    words = tuple(Word(w.text, w.start_seconds + seconds, w.end_seconds + seconds, w.confidence) for w in segment.words)
    return Segment(segment.text, segment.start_seconds + seconds, segment.end_seconds + seconds, words)
