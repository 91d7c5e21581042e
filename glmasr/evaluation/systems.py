"""Waveforms in, transcripts out: models of transformers, a server over HTTP, hypotheses on file, and a time limit."""

import functools
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from glmasr.evaluation.conditions import turn_down
from glmasr.frontend.audio import encode_audio
from glmasr.speech import RATE_HZ, InputError, Segment, System, Transcript, Utterance

log = logging.getLogger(__name__)

TRIES = 4
BUSY_STATUS = 429
REFUSED = {401: "the key is not accepted", 403: "access is forbidden", 404: "there is no such address or model"}
"""What no other utterance would change: the run stops, instead of scoring a whole test set as empty."""

HYPOTHESIS_FIELDS = ("pred_text", "hypothesis", "text")
"""Where a row has its hypothesis; `text` is the reference wherever another of them is there."""


Key = tuple[str, str]
"""What a recorded hypothesis is known by: `id` or `path`, and which."""


class TransformersASR:
    """A speech recognition model of transformers as a `System`: greedy (or `beam`), in float32.

    `model` is a folder or a hub name of a CTC (Wav2Vec2, HuBERT, Parakeet…), sequence-to-sequence (Whisper, Moonshine…)
    or TDT model; InputError where it cannot be had or has no head that was trained. `language` is what a multilingual
    Whisper is told; None lets it detect it. Whisper, whose windows are all of one length, takes `batch` of them at a
    time; other models hear one utterance at a time, since they would put words into the padding of a shorter one.
    `size_bytes` are the weights in memory.
    """

    def __init__(
        self,
        model: str,
        name: str | None = None,
        language: str | None = None,
        device: str = "cpu",
        batch: int = 1,
        beam: int = 1,
    ):
        self.name = name or Path(model).name
        self.language = language
        self.pipeline = open_pipeline(model, device)
        self.is_whisper = self.pipeline.type == "seq2seq_whisper"
        self.batch = batch if self.is_whisper else 1
        network = self.pipeline.model
        self.options: dict[str, Any] = {}
        if self.pipeline.type.startswith("seq2seq"):
            self.options = {"num_beams": beam, "do_sample": False}
            self.options |= {"language": language} if language and self.is_whisper else {}
        self.parameters = network.num_parameters()
        self.size_bytes = sum(weight.numel() * weight.element_size() for weight in network.parameters())
        origin = getattr(network.config, "_commit_hash", None) or _file_states(model)
        self.fingerprint = json.dumps([model, origin, language, self.batch, self.options])

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """Transcribe 16 kHz mono waveforms; an empty one is not shown to the model."""
        window = self.pipeline.feature_extractor.n_samples if self.is_whisper else max(map(len, waveforms), default=0)
        texts = [""] * len(waveforms)
        for is_long in (False, True):
            chosen = [
                i for i, waveform in enumerate(waveforms) if len(waveform) and (len(waveform) > window) == is_long
            ]
            for i, text in zip(chosen, self._read([waveforms[i] for i in chosen], is_long), strict=True):
                texts[i] = text
        language = self.language or ""
        return [Transcript(text, len(w) / RATE_HZ, language=language) for text, w in zip(texts, waveforms, strict=True)]

    def _read(self, waveforms: Sequence[np.ndarray], is_long: bool) -> list[str]:
        """Texts; Whisper finds its next window by timestamps, so what is longer than one (and only that) has them."""
        how: dict[str, Any] = {"generate_kwargs": self.options} if self.options else {}
        how |= {"return_timestamps": True} if is_long else {"batch_size": self.batch}
        inputs = [{"raw": waveform, "sampling_rate": RATE_HZ} for waveform in waveforms]
        return [found["text"].strip() for found in self.pipeline(inputs, **how)] if inputs else []


def open_pipeline(model: str, device: str = "cpu") -> Any:
    """The transformers pipeline of a folder or a hub name; InputError with the reason where there is none."""
    try:
        import transformers
        from transformers import pipeline
    except ImportError as error:
        raise InputError(f"'{model}' needs transformers, which is not installed: pip install transformers") from error
    try:
        config = transformers.AutoConfig.from_pretrained(model)
        network, about = _head_of(config, model).from_pretrained(model, dtype="float32", output_loading_info=True)
        features = transformers.AutoFeatureExtractor.from_pretrained(model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        if about["missing_keys"]:
            missing = ", ".join(sorted(about["missing_keys"])[:3])
            raise InputError(
                f"model '{model}' was not trained to recognize speech (it lacks {missing}): choose another"
            )
        kind = "automatic-speech-recognition"
        return pipeline(kind, model=network, feature_extractor=features, tokenizer=tokenizer, device=device)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model '{model}' cannot be had ({reason}): give a folder or a hub name of a speech recognition model of "
            f"transformers, and a device that this machine has"
        ) from error


def _head_of(config: Any, model: str) -> Any:
    """The automatic class that a model of this configuration belongs to."""
    from transformers import AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoModelForTDT

    for head in (AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoModelForTDT):
        if type(config) in head._model_mapping:
            return head
    raise InputError(f"model '{model}' is a {config.model_type}, which transcribes no speech: choose another")


class OpenAIEndpoint:
    """A server with OpenAI's transcription interface as a `System`: one utterance a request, sent as 16-bit FLAC.

    The key is read from the environment, where `key_variable` is set. A busy or broken server (429, 5xx, no connection)
    is asked four times, `pause_seconds` later and then twice as long; what then fails, or says nothing for
    `timeout_seconds`, raises for its utterance. A key, an address or a model that is refused is an InputError. What
    the server runs is not known: parameters and size are 0, and a model replaced under its name goes unnoticed.
    """

    parameters = 0
    size_bytes = 0

    def __init__(
        self,
        url: str,
        model: str,
        name: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        language: str | None = None,
        timeout_seconds: float = 60.0,
        pause_seconds: float = 1.0,
    ):
        if not url.startswith(("http://", "https://")):
            raise InputError(f"'{url}' is no address of a server: it begins with http:// or https://")
        self.url = f"{url.rstrip('/').removesuffix('/v1')}/v1/audio/transcriptions"
        self.name = name or Path(model).name
        self.model, self.language, self.key_variable = model, language, key_variable
        self.timeout_seconds, self.pause_seconds = timeout_seconds, pause_seconds
        self.form = "verbose_json"
        self.fingerprint = json.dumps([self.url, model, language])

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """Transcribe 16 kHz mono waveforms, one after the other."""
        return [self._transcribe(waveform) for waveform in waveforms]

    @functools.cached_property
    def _client(self) -> Any:
        try:
            import httpx
        except ImportError as error:
            raise InputError(f"'{self.url}' needs httpx, which is not installed: pip install httpx") from error
        return httpx.Client(timeout=self.timeout_seconds)

    def _transcribe(self, waveform: np.ndarray) -> Transcript:
        seconds = len(waveform) / RATE_HZ
        if not len(waveform):
            return Transcript("", 0.0)
        audio = encode_audio(turn_down(waveform))
        answer = self._ask(audio)
        if answer.status_code in (400, 415, 422) and self.form == "verbose_json":  # some models know plain JSON alone
            self.form = "json"
            answer = self._ask(audio)
        if answer.status_code in REFUSED:
            reason = f"HTTP {answer.status_code}, {REFUSED[answer.status_code]}"
            raise InputError(f"'{self.url}' refuses '{self.model}' ({reason}): set {self.key_variable}, url and model")
        if not answer.is_success:
            raise RuntimeError(f"HTTP {answer.status_code}: {' '.join(answer.text.split())[:200]}")
        return _transcript(answer, seconds)

    def _ask(self, audio: bytes) -> Any:
        """The server's last answer, whatever it says; httpx's error where there is none."""
        import httpx

        fields = {"model": self.model, "response_format": self.form, "temperature": "0"}
        fields |= {"language": self.language} if self.language else {}
        key = os.environ.get(self.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for pause_seconds in [self.pause_seconds * 2**i for i in range(TRIES - 1)] + [None]:
            try:
                files = {"file": ("speech.flac", audio, "audio/flac")}
                answer = self._client.post(self.url, data=fields, files=files, headers=headers)
            except httpx.TransportError as error:
                if pause_seconds is None or isinstance(error, httpx.TimeoutException):
                    raise
            else:
                if pause_seconds is None or not (answer.status_code == BUSY_STATUS or answer.status_code >= 500):
                    return answer
            time.sleep(pause_seconds)


def _transcript(answer: Any, seconds: float) -> Transcript:
    """A `Transcript` of JSON or verbose JSON; ValueError where the answer is neither."""
    try:
        found = answer.json()
        text = str(found["text"]).strip()
        segments = tuple(
            Segment(str(one["text"]).strip(), float(one["start"]), min(float(one["end"]), seconds))
            for one in found.get("segments") or ()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(answer.text.split())[:100]
        raise ValueError(f"the answer is no transcription in JSON ({error!r}): {said}") from error
    return Transcript(text, seconds, segments, str(found.get("language") or ""))


class Recorded:
    """Hypotheses that a JSONL file has (`pred_text`, else `hypothesis`, else `text`), under the name of a system.

    Rows are found by their `id`, or by `audio_filepath` and `offset`; a path without its first folders will do. They
    were heard under one `condition`, and for another they say nothing. As waveforms do not tell what they are,
    `recall` takes the utterances instead.
    """

    parameters = 0
    size_bytes = 0

    def __init__(self, path: str, name: str | None = None, condition: str = "clean"):
        self.name = name or Path(path).stem
        self.condition = condition
        try:
            content = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"hypotheses '{path}' cannot be read ({error.strerror}): check the path") from error
        self.path = path
        self.rows = _read_hypotheses(content, path)
        self.fingerprint = hashlib.sha256(content).hexdigest()

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """Not possible: an InputError."""
        raise InputError(f"'{self.path}' has hypotheses of known utterances: it cannot hear others")

    def recall(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """What the file has for each; KeyError with the id of the first that it lacks."""
        return [Transcript(self._find(u), u.duration_seconds, language=u.language) for u in utterances]

    def _find(self, utterance: Utterance) -> str:
        for key in _keys(utterance):
            if key in self.rows:
                return self.rows[key]
        raise KeyError(f"no hypothesis for '{utterance.id}' in '{self.path}'")


def _keys(utterance: Utterance) -> Iterator[Key]:
    """The names that an utterance's row may have, the surest first."""
    yield "id", utterance.id
    yield "path", utterance.id
    if isinstance(utterance.audio, str):
        yield "path", _located(utterance.audio, utterance.offset_seconds)
        folders = PurePath(utterance.audio).parts
        for start in range(1, len(folders)):
            yield "path", _located("/".join(folders[start:]), utterance.offset_seconds)


def _located(path: str, offset_seconds: float) -> str:
    """A catalog's name of a stretch of a recording that has no id."""
    stem = os.path.splitext(path)[0].removeprefix("./")
    return f"{stem}@{offset_seconds:g}" if offset_seconds else stem


def _read_hypotheses(content: bytes, path: str) -> dict[Key, str]:
    """Hypotheses by id, or by path and offset; rows whose hypothesis is null are left out."""
    found: dict[Key, str] = {}
    for number, line in enumerate(content.decode("utf-8-sig", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            [text, *_] = [row[field] for field in HYPOTHESIS_FIELDS if field in row]
            named = row.get("id")
            place = None if named else _located(row["audio_filepath"], float(row.get("offset") or 0.0))
            key = ("id", str(named)) if place is None else ("path", place)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            remedy = "give it an id or an audio_filepath, and a pred_text"
            raise InputError(f"line {number} of '{path}' is no hypothesis ({error!r}): {remedy}") from error
        if key in found and found[key] != text:
            raise InputError(f"'{path}' has two hypotheses for '{key[1]}': keep those of one condition and one run")
        if text is not None:
            found[key] = str(text)
    return found


class Limited:
    """Another system that may take `seconds` for each utterance of a call, and raises TimeoutError after that.

    A thread cannot be ended: one that hangs is left behind and counted in `left_behind`, and it may slow down what
    follows. The system must bear being called again meanwhile.
    """

    def __init__(self, system: System, seconds: float):
        self.system, self.seconds = system, seconds
        self.name, self.parameters, self.size_bytes = system.name, system.parameters, system.size_bytes
        self.fingerprint = getattr(system, "fingerprint", "")
        self.left_behind = 0

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """Transcribe 16 kHz mono waveforms as the system does, or raise what it raises."""
        outcome: Future[list[Transcript]] = Future()
        threading.Thread(target=_settle, args=(outcome, self.system, waveforms), daemon=True).start()
        limit_seconds = self.seconds * len(waveforms)
        try:
            return outcome.result(limit_seconds)
        except TimeoutError:
            if outcome.done():  # the system's own
                raise
            self.left_behind += 1
            log.warning(
                "%s hangs on %d utterances: thread left behind (%d)", self.name, len(waveforms), self.left_behind
            )
            raise TimeoutError(f"no answer within {limit_seconds:g} s") from None


def _settle(outcome: Future, system: System, waveforms: list[np.ndarray]) -> None:
    """The outcome of a call, in the thread it is made in."""
    try:
        outcome.set_result(system(waveforms))
    except BaseException as error:  # whatever it is belongs to the caller
        outcome.set_exception(error)


def _file_states(model: str) -> list:
    """Sizes and dates of a folder's files, by which another state of its weights is told."""
    files = sorted(file for file in Path(model).expanduser().glob("*") if file.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
