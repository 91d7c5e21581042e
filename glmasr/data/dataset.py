"""A catalog in; damaged waveforms with their transcripts, collated into batches, out."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from glmasr.data.catalog import Catalog
from glmasr.data.sampler import Key
from glmasr.frontend.audio import UnreadableAudio, read_audio
from glmasr.speech import RATE_HZ, Batch, InputError, Utterance

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""`(waveform N, rng) → waveform N`."""

Mixing = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""`(waveform N, other waveform, rng) → waveform N`."""

Silencing = Callable[[np.ndarray, np.random.Generator], np.ndarray | None]
"""`(waveform N, rng) → waveform N` without a word in it, or None."""


class Encodes(Protocol):
    """The part of a tokenizer that a dataset needs."""

    def encode(self, text: str, language: str = "") -> list[int]:
        """Token ids of a transcript in a language; "" where that is not known."""
        ...


MISSING_SECONDS = 0.1
"""An utterance that lacks more of what its catalog says was cut short since, and its transcript says too much."""

NEIGHBORS = 8
"""Rows tried in the place of a batch that cannot be read; more in a row are a disk that is gone."""


@dataclass(frozen=True)
class Item:
    """One utterance on its way into a batch: `waveform` (N) as heard, `clean` (N) before noise if any was asked for."""

    id: str
    waveform: Tensor
    clean: Tensor | None
    tokens: Tensor | None
    text: str | None
    index: int


class SpeechDataset(torch.utils.data.Dataset):
    """Utterances by (row, global batch index), of which every random choice is a function, whichever worker loads it.

    `augmentations` change the speech itself, so `clean` has them too; `noise` is in `waveform` only, and so is the
    `talker` that another utterance of the batch may become. With a `tokenizer` every utterance must have a text; what
    `wordless` puts in the place of one has an empty one. In a batch an unreadable utterance gives its place to a
    readable one: `unreadable` counts them, the first is a warning.

    What was decoded is kept for the next epoch as long as it takes no more than `decoded_mb`, in every process that
    loads. Nothing is thrown out for something newer: of a corpus that is heard in ever new orders, what is kept then
    saves as large a share of the decoding as it is of the corpus.
    """

    def __init__(
        self,
        catalog: Catalog,
        augmentations: Sequence[Augmentation] = (),
        noise: Augmentation | None = None,
        tokenizer: Encodes | None = None,
        seed: int = 0,
        talker: Mixing | None = None,
        wordless: Silencing | None = None,
        decoded_mb: float = 0.0,
    ):
        self.decoded: dict[int, tuple[Utterance, np.ndarray]] = {}
        self.room_bytes = decoded_mb * 1e6
        self.catalog, self.augmentations, self.noise, self.talker = catalog, tuple(augmentations), noise, talker
        self.tokenizer, self.seed, self.wordless = tokenizer, seed, wordless
        self.unreadable = 0

    def __len__(self) -> int:
        return len(self.catalog)

    def __getitem__(self, key: Key) -> Item:
        """Load one utterance; UnreadableAudio where it cannot be read."""
        row, index = key
        utterance, clean = self._decode(row)
        rng = np.random.default_rng((self.seed, index, row))
        for augmentation in self.augmentations:
            clean = augmentation(clean, rng)
        nobody = self.wordless and self.wordless(clean, rng)
        if nobody is not None:
            utterance, clean = replace(utterance, text=""), nobody
        waveform = clean if self.noise is None else self.noise(clean.copy(), rng)
        return Item(
            id=utterance.id,
            waveform=torch.from_numpy(waveform),
            clean=None if self.noise is None and self.talker is None else torch.from_numpy(clean),
            tokens=self._tokens(utterance),
            text=utterance.text,
            index=index,
        )

    def _decode(self, row: int) -> tuple[Utterance, np.ndarray]:
        """An utterance, and its waveform (N), which the caller may change."""
        if row in self.decoded:
            utterance, waveform = self.decoded[row]
            return utterance, waveform.copy()
        utterance = self.catalog[row]
        waveform = read_audio(utterance.audio, utterance.offset_seconds, utterance.duration_seconds)
        if len(waveform) < (utterance.duration_seconds - MISSING_SECONDS) * RATE_HZ:
            left = f"{len(waveform) / RATE_HZ:.2f} of {utterance.duration_seconds:.2f} s"
            raise UnreadableAudio(f"'{utterance.id}' has become shorter: {left}; fetch it again", "truncated")
        if waveform.nbytes <= self.room_bytes:
            self.room_bytes -= waveform.nbytes
            self.decoded[row] = replace(utterance, audio=""), waveform.copy()
        return utterance, waveform

    def __getitems__(self, keys: list[Key]) -> list[Item]:
        """Load a batch; `DataLoader` prefers this to `__getitem__`. InputError where nothing near it can be read."""
        items = [self._attempt(key) for key in keys]
        readable = [item for item in items if isinstance(item, Item)] or [self._neighbor(*keys[0], items[0])]
        items = [item if isinstance(item, Item) else readable[n % len(readable)] for n, item in enumerate(items)]
        return [self._talked_over(n, items) for n in range(len(items))]

    def _neighbor(self, row: int, index: int, error: Item | UnreadableAudio) -> Item:
        """The first of the next rows that can be read, for a batch of which nothing can."""
        for step in range(1, min(NEIGHBORS, len(self.catalog) - 1) + 1):
            found = self._attempt(((row + step) % len(self.catalog), index))
            if isinstance(found, Item):
                return found
        raise InputError(f"no utterance of batch {index} can be read, nor {NEIGHBORS} more: {error}")

    def _talked_over(self, place: int, items: list[Item]) -> Item:
        """The item with another of its batch in the background, where that is asked for and there is another."""
        item = items[place]
        if self.talker is None or len(items) < 2:
            return item
        rng = np.random.default_rng((self.seed, item.index, place, 1))
        other = items[(place + int(rng.integers(1, len(items)))) % len(items)]
        assert other.clean is not None
        mixed = self.talker(item.waveform.numpy(), other.clean.numpy(), rng)
        return replace(item, waveform=torch.from_numpy(mixed))

    def _attempt(self, key: Key) -> Item | UnreadableAudio:
        try:
            return self[key]
        except UnreadableAudio as error:
            if not self.unreadable:
                message = f"{error}; another utterance takes its place, further ones are only counted"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            self.unreadable += 1
            return error

    def _tokens(self, utterance: Utterance) -> Tensor | None:
        if self.tokenizer is None:
            return None
        if utterance.text is None:
            raise InputError(
                f"utterance '{utterance.id}' has no transcript to train on; choose labelled utterances only"
            )
        if not utterance.text:
            return torch.zeros(0, dtype=torch.long)  # no tag of a language either: none is spoken
        return torch.tensor(self.tokenizer.encode(utterance.text, utterance.language), dtype=torch.long)


def collate(items: list[Item]) -> Batch:
    """Items of one batch, padded to the longest: waveforms with 0, tokens with -1."""
    tokens = [item.tokens for item in items if item.tokens is not None]
    cleans = [item.clean for item in items if item.clean is not None]
    return Batch(
        waveform=_padded([item.waveform for item in items], 0.0),
        lengths=torch.tensor([len(item.waveform) for item in items]),
        clean=_padded(cleans, 0.0) if cleans else None,
        tokens=_padded(tokens, -1) if tokens else None,
        token_lengths=torch.tensor([len(one) for one in tokens]) if tokens else None,
        ids=tuple(item.id for item in items),
        texts=tuple(item.text for item in items),
        index=items[0].index,
    )


def _padded(rows: list[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
