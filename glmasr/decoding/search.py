"""What the encoder heard of a batch in, n-best lists out: the searches an experiment chooses from, by name or YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from glmasr.build import build
from glmasr.decoding import ctc
from glmasr.decoding.hotwords import Hotwords
from glmasr.decoding.hypothesis import Guide, Guides, Hypothesis
from glmasr.decoding.ngram import LanguageModel
from glmasr.speech import InputError
from glmasr.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # the searches that need CTC alone work without torch
    from glmasr.model.decoder import Decoder
    from glmasr.model.recognizer import Heard, Recognizer


CTC_WEIGHTS = {"joint": 0.8, "rescore": 0.3}
"""How much CTC has to say where neither a setting nor the bundle says so (docs/LOG.md)."""


class Search(Protocol):
    """Anything that finds texts in what was heard."""

    def __call__(self, heard: "Heard") -> list[list[Hypothesis]]:
        """For each utterance of the batch its hypotheses, at least one, best first."""
        ...


@dataclass(frozen=True)
class CtcGreedy:
    """The best token of every frame: one hypothesis, with frames and confidences."""

    recognizer: "Recognizer | None"
    tokenizer: Tokenizer

    def __call__(self, heard: "Heard") -> list[list[Hypothesis]]:
        return self.find(rows_of(heard))

    def find(self, rows: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """The same from log-probabilities (T, V) of each utterance."""
        return [[ctc.greedy(row)] for row in rows]


@dataclass(frozen=True)
class CtcBeam:
    """CTC prefix beam search, guided by a language model (`lm`, a file KenLM reads) and hotwords if there are any.

    `tokens` are tried at each frame. `token_bonus` and `hotword_weight` are natural logs for each token; a language
    model makes texts short, and the bonus makes up for it.
    """

    recognizer: "Recognizer | None"
    tokenizer: Tokenizer
    beam: int = 10
    tokens: int = 20
    lm: str | None = None
    lm_weight: float = 0.5
    token_bonus: float = 0.0
    hotwords: Sequence[str] = ()
    hotword_weight: float = 1.0

    def __post_init__(self):
        check_beam(self.beam)
        check_tokens(self.tokens)
        _ = self.guide  # what is wrong with it is said now

    @cached_property
    def guide(self) -> Guide | None:
        """What it is guided by."""
        return guide_of(self, self.token_bonus)

    def __call__(self, heard: "Heard") -> list[list[Hypothesis]]:
        return self.find(rows_of(heard))

    def find(self, rows: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """The same from log-probabilities (T, V) of each utterance."""
        return [ctc.beam_search(row[None], [len(row)], self.beam, self.tokens, self.guide)[0] for row in rows]


@dataclass(frozen=True)
class Attention:
    """Beam search of the attention decoder; `length_bonus` is a natural log for each token."""

    recognizer: "Recognizer | None"
    tokenizer: Tokenizer
    beam: int = 10
    length_bonus: float = 0.0
    lm: str | None = None
    lm_weight: float = 0.3
    hotwords: Sequence[str] = ()
    hotword_weight: float = 1.0

    def __post_init__(self):
        check_beam(self.beam)
        _ = self.decoder, self.guide

    @cached_property
    def decoder(self) -> "Decoder":
        """The recognizer's, or an InputError."""
        return decoder_of(self.recognizer, "attention")

    @cached_property
    def guide(self) -> Guide | None:
        """What it is guided by."""
        return guide_of(self)

    def __call__(self, heard: "Heard") -> list[list[Hypothesis]]:
        from glmasr.decoding import attention

        return attention.beam_search(self.decoder, heard, self.beam, 0.0, self.length_bonus, self.guide)


@dataclass(frozen=True)
class Joint:
    """CTC and attention in one pass: CTC keeps the decoder from loops and leaps, the decoder knows how texts go.

    Without a `ctc_weight` it is what fine-tuning found best for this recognizer, or the usual one.
    """

    recognizer: "Recognizer | None"
    tokenizer: Tokenizer
    beam: int = 10
    ctc_weight: float | None = None
    length_bonus: float = 0.0
    lm: str | None = None
    lm_weight: float = 0.3
    hotwords: Sequence[str] = ()
    hotword_weight: float = 1.0

    def __post_init__(self):
        check_beam(self.beam)
        _ = self.decoder, self.guide, self.weight

    @cached_property
    def weight(self) -> float:
        """Of CTC."""
        return weight_of("joint", self.ctc_weight, self.recognizer)

    @cached_property
    def decoder(self) -> "Decoder":
        """The recognizer's, or an InputError."""
        return decoder_of(self.recognizer, "joint")

    @cached_property
    def guide(self) -> Guide | None:
        """What it is guided by."""
        return guide_of(self)

    def __call__(self, heard: "Heard") -> list[list[Hypothesis]]:
        from glmasr.decoding import attention

        return attention.beam_search(self.decoder, heard, self.beam, self.weight, self.length_bonus, self.guide)


@dataclass(frozen=True)
class Rescore:
    """The CTC beam's hypotheses, put in order by CTC and attention together; `ctc_weight` as of Joint."""

    recognizer: "Recognizer | None"
    tokenizer: Tokenizer
    beam: int = 10
    tokens: int = 20
    ctc_weight: float | None = None
    lm: str | None = None
    lm_weight: float = 0.5
    token_bonus: float = 0.0
    hotwords: Sequence[str] = ()
    hotword_weight: float = 1.0

    def __post_init__(self):
        check_beam(self.beam)
        check_tokens(self.tokens)
        _ = self.decoder, self.guide, self.weight

    @cached_property
    def weight(self) -> float:
        """Of CTC."""
        return weight_of("rescore", self.ctc_weight, self.recognizer)

    @cached_property
    def decoder(self) -> "Decoder":
        """The recognizer's, or an InputError."""
        return decoder_of(self.recognizer, "rescore")

    @cached_property
    def guide(self) -> Guide | None:
        """What its first pass is guided by."""
        return guide_of(self, self.token_bonus)

    def __call__(self, heard: "Heard") -> list[list[Hypothesis]]:
        from glmasr.decoding.rescore import rescore

        rows = rows_of(heard)
        found = [ctc.beam_search(row[None], [len(row)], self.beam, self.tokens, self.guide)[0] for row in rows]
        return rescore(self.decoder, heard.context, heard.padding, found, self.weight)


SEARCHES = {"ctc_greedy": CtcGreedy, "ctc_beam": CtcBeam, "attention": Attention, "joint": Joint, "rescore": Rescore}
"""By the names of conf/decoding/*.yaml."""


def rows_of(heard: "Heard") -> list[np.ndarray]:
    """Log-probabilities (T, V) of each utterance, without its padding."""
    scores = heard.ctc_log_probs.detach().float().cpu().numpy()
    return [row[:end] for row, end in zip(scores, heard.lengths.tolist(), strict=True)]


def open_search(config: Mapping[str, Any] | str, recognizer: "Recognizer | None", tokenizer: Tokenizer) -> Search:
    """The search a config with `_target_` describes, or one of SEARCHES by its name, as `by_name` takes it.

    Without a recognizer there is CTC alone. InputError where the name, a setting or a file is wrong, or the decoder
    is not there that the search needs.
    """
    config = by_name(config, SEARCHES)
    if isinstance(config, str):
        return SEARCHES[config](recognizer, tokenizer)
    return build(config, recognizer=recognizer, tokenizer=tokenizer)


def by_name(config: Mapping[str, Any] | str, kinds: Mapping[str, type]) -> Mapping[str, Any] | str:
    """One of `kinds` by name as it is, {name: joint, ctc_weight: 0.5} as a config with `_target_`, which stays too.

    InputError where there is none of that name.
    """
    plain = isinstance(config, str)
    if not plain and "_target_" in config:
        return config
    name = config if plain else config.get("name", "")
    if name not in kinds:
        raise InputError(f"decoding '{name}' is unknown: choose one of {', '.join(kinds)}")
    if plain:
        return config
    settings = {key: value for key, value in config.items() if key != "name"}
    return {"_target_": f"{kinds[name].__module__}.{kinds[name].__name__}", **settings}


def guide_of(search: "CtcBeam | Attention | Joint | Rescore", token_bonus: float = 0.0) -> Guide | None:
    """A search's language model, hotwords and bonus as one guide, None where it has none of them."""
    guides: list[Guide] = []
    if search.lm:
        guides.append(LanguageModel(search.lm, search.lm_weight, search.tokenizer))
    if search.hotwords:
        guides.append(Hotwords(search.hotwords, search.hotword_weight, search.tokenizer))
    return Guides(tuple(guides), token_bonus) if guides or token_bonus else None


def decoder_of(recognizer: "Recognizer | None", name: str) -> "Decoder":
    """The attention decoder, or an InputError that says what to do without one."""
    if recognizer is None:
        raise InputError(f"decoding={name} needs the bundle itself: with what was exported use ctc_greedy or ctc_beam")
    if recognizer.decoder is None:
        raise InputError(
            f"decoding={name} needs an attention decoder, which this bundle was trained without: use ctc_beam"
        )
    return recognizer.decoder


def check_beam(beam: int) -> None:
    """InputError for a beam of nothing."""
    if beam < 1:
        raise InputError(f"a beam of {beam} finds nothing: choose 1 or more")


def check_tokens(tokens: int) -> None:
    """InputError for frames at which nothing is tried."""
    if tokens < 1:
        raise InputError(f"with tokens {tokens} every text stays empty: choose 1 or more to try at each frame")


def weight_of(search: str, asked: float | None, recognizer: "Recognizer | None") -> float:
    """How much CTC has to say: as asked, else as the bundle says, else as usual; InputError outside 0 … 1."""
    kept = recognizer.ctc_weights if recognizer is not None else {}
    weight = kept.get(search, CTC_WEIGHTS[search]) if asked is None else asked
    check_weight(weight)
    return weight


def check_weight(ctc_weight: float) -> None:
    """InputError outside 0 … 1."""
    if not isinstance(ctc_weight, int | float) or not 0.0 <= ctc_weight <= 1.0:
        raise InputError(f"ctc_weight {ctc_weight} is not a share: choose 0 (attention alone) to 1 (CTC alone)")
