"""Corpora of long recordings with the times of what is said in them in; utterances that point into them out."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import fingerprint_of, split_by_hash, split_of_folder
from glmasr.data.recordings import (
    corpus_folder,
    files_below,
    folders_below,
    joined,
    objects_in,
    remembering_probe,
    seconds_of,
    stretch_of,
)
from glmasr.frontend.audio import AUDIO_SUFFIXES, UnreadableAudio
from glmasr.speech import InputError, Utterance

PUNCTUATION_TAGS = re.compile("<(COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>")
NOT_SPEECH_TAGS = re.compile("<(SIL|MUSIC|NOISE|OTHER)>")
"""GigaSpeech's: the first kind is taken out of a text, one of the second makes the segment no utterance."""

_INTERVAL = re.compile(r'xmin\s*=\s*(\S+)\s+xmax\s*=\s*(\S+)\s+text\s*=\s*"((?:[^"]|"")*)"')
_TIER = re.compile(r'class\s*=\s*"IntervalTier"\s+name\s*=\s*"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class SegmentedJson:
    """One JSON file with a list of `audios`, each with its `segments`: GigaSpeech and WenetSpeech.

    `path` is the JSON file, whose folder the recordings' paths start from. `subsets` says which subset is which split;
    a segment in several is in the first named.
    """

    path: str
    subsets: dict[str, str]
    language: str

    @property
    def name(self) -> str:
        """The JSON file's name in lower case."""
        return Path(self.path).stem.lower()

    def fingerprint(self) -> str:
        """A hash over the options, the JSON file and the folders of the recordings; InputError where it is missing."""
        file = self._file()
        return fingerprint_of(self, [file, *folders_below(os.path.join(os.path.dirname(file), "audio"))])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """The segments of the wanted subsets in the file's order."""
        file = self._file()
        probe, wanted = remembering_probe(), {theirs: ours for ours, theirs in self.subsets.items()}
        for recording in objects_in(file, "audios"):
            audio = os.path.join(os.path.dirname(file), str(recording.get("path")))
            for segment in recording.get("segments") or ():
                if not isinstance(segment, dict):
                    continue
                subsets = {str(one).strip("{}") for one in segment.get("subsets") or ()}
                split = next((ours for theirs, ours in wanted.items() if theirs in subsets), None)
                if split:
                    yield self._utterance(segment, audio, split, probe)

    def _utterance(self, segment: dict, audio: str, split: str, probe) -> Utterance | Skipped:
        identity = str(segment.get("sid"))
        try:
            begin, end = seconds_of(segment["begin_time"]), seconds_of(segment["end_time"])
        except (KeyError, TypeError, ValueError) as error:
            return Skipped(identity, "malformed", f"segment '{identity}' of '{audio}' has no times ({error})")
        text = str(segment.get("text_tn") or segment.get("text") or "")
        if NOT_SPEECH_TAGS.search(text):
            return Skipped(identity, "not speech", f"segment '{identity}' is marked as '{text}'", is_audio=False)
        speaker = str(segment.get("speaker") or "").replace("N/A", "")
        known: dict[str, Any] = {"language": self.language, "speaker": speaker, "split": split}
        return stretch_of(
            audio, identity, probe, begin, end - begin, text=joined(PUNCTUATION_TAGS.sub(" ", text)), **known
        )

    def _file(self) -> str:
        file = os.path.abspath(os.path.expanduser(self.path or ""))
        if not os.path.isfile(file):
            raise InputError(
                f"'{self.path}' is not a file; set data.path to the corpus's JSON, beside its folder audio"
            )
        return file


@dataclass(frozen=True)
class LibriLight:
    """`<part>/<speaker>/<book>/<chapter>.flac` with a `.json` beside it that says where somebody speaks.

    Chapters last half an hour; neighboring stretches of speech are joined up to `max_seconds`, longer ones cut.
    """

    path: str
    max_seconds: float = 20.0
    dev_share: float = 0.005
    language: str = "en"

    name = "libri_light"

    def fingerprint(self) -> str:
        """A hash over the options and the folders; InputError where there is no recording."""
        root = corpus_folder(self.path, "Libri-Light")
        return fingerprint_of(self, folders_below(root))

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Stretches of speech without a text, chapter by chapter; a chapter is dev or train as a whole."""
        root = corpus_folder(self.path, "Libri-Light")
        recordings, probe = files_below(root, (".flac",)), remembering_probe()
        if not recordings:
            raise InputError(f"there is no *.flac under '{self.path}'; set data.path to the unpacked Libri-Light")
        for audio in recordings:
            stem, chapter = os.path.splitext(audio)[0], os.path.splitext(os.path.relpath(audio, root))[0]
            try:
                about = json.loads(Path(f"{stem}.json").read_text("utf-8"))
                spoken = [(seconds_of(begin), seconds_of(end)) for begin, end in about["voice_activity"]]
                probe(audio)
            except UnreadableAudio as error:
                yield Skipped(audio, error.cause, str(error))
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                detail = f"'{stem}.json' does not say where '{audio}' is speech ({error}); fetch it again"
                yield Skipped(audio, "voice activity is missing", detail)
                continue
            known: dict[str, Any] = {"language": self.language, "speaker": str(about.get("speaker") or "")}
            known["split"] = split_by_hash(chapter, self.dev_share)
            for begin, end in pieces(spoken, self.max_seconds):
                yield stretch_of(audio, f"{chapter}@{begin:.2f}", probe, begin, end - begin, **known)


@dataclass(frozen=True)
class Aishell4:
    """`{train_L,train_M,train_S,test}/wav/<meeting>.flac` with `TextGrid/<meeting>.TextGrid`, a tier for each speaker.

    The eight channels are averaged as everywhere; where speakers overlap, each one's stretch is an utterance. Of the
    meetings in train `dev_share` are dev.
    """

    path: str
    dev_share: float = 0.05
    language: str = "zh"

    name = "aishell4"

    def fingerprint(self) -> str:
        """A hash over the options, the recordings and the TextGrids; InputError where there are none."""
        meetings = self._meetings()
        return fingerprint_of(self, [*meetings, *map(_textgrid_of, meetings)])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """What each speaker says, meeting by meeting."""
        probe = remembering_probe()
        for audio in self._meetings():
            meeting, part = Path(audio).stem, Path(audio).parts[-3]
            try:
                spoken = read_textgrid(_textgrid_of(audio))
            except (OSError, ValueError) as error:
                detail = f"'{_textgrid_of(audio)}' is not a TextGrid with intervals ({error}); fetch it again"
                yield Skipped(audio, "transcript is damaged", detail)
                continue
            split = "test" if split_of_folder(part) == "test" else split_by_hash(meeting, self.dev_share)
            for speaker, begin, end, mark in spoken:
                text = joined(re.sub("<[^<>]*>", " ", mark))
                if text:
                    known: dict[str, Any] = {
                        "text": text,
                        "language": self.language,
                        "speaker": f"{meeting}-{speaker}",
                        "split": split,
                    }
                    yield stretch_of(audio, f"{meeting}-{speaker}@{begin:.2f}", probe, begin, end - begin, **known)

    def _meetings(self) -> list[str]:
        root = corpus_folder(self.path, "AISHELL-4")
        meetings = [file for file in files_below(root, (".flac", ".wav")) if Path(file).parent.name == "wav"]
        if not meetings:
            raise InputError(f"there is no */wav/*.flac under '{self.path}'; set data.path to the unpacked AISHELL-4")
        return meetings


@dataclass(frozen=True)
class WenetSpeechYue:
    """A JSON list (or one object a line) of `utt_id`, `rover_result`, `confidence`, `speaker_id` … and the recordings.

    The corpus names recordings by link; `audio` is the folder where yours are, either clips `<utt_id>.*`, or the long
    recordings, then `<recording>_<begin>_<end>` of an id is read in milliseconds. `min_confidence` is that of the text.
    """

    path: str
    audio: str
    min_confidence: float = 0.0
    dev_share: float = 0.005
    language: str = "yue"

    name = "wenetspeech_yue"

    def fingerprint(self) -> str:
        """A hash over the options, the JSON file and the folders of recordings; InputError where one is missing."""
        file, folder = self._found()
        return fingerprint_of(self, [file, *folders_below(folder)])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """The rows of the JSON file that are confident enough, in its order."""
        file, folder = self._found()
        recordings = {Path(one).stem: one for one in files_below(folder, AUDIO_SUFFIXES)}
        probe = remembering_probe()
        for row in objects_in(file):
            identity = str(row.get("utt_id") or row.get("utt") or "")
            try:
                if float(row.get("confidence") or 0.0) < self.min_confidence:
                    continue
            except (TypeError, ValueError):
                yield Skipped(
                    identity, "malformed", f"'{identity}' has confidence {row.get('confidence')!r}, no number"
                )
                continue
            long = re.fullmatch(r"(.+)_(\d+)_(\d+)", identity)
            begin, duration, audio = 0.0, None, recordings.get(identity)
            if audio is None and long and long[1] in recordings:
                audio, begin = recordings[long[1]], int(long[2]) / 1000
                duration = int(long[3]) / 1000 - begin
            if audio is None:
                detail = f"'{identity}' has no recording under '{folder}'; fetch it by its link"
                yield Skipped(identity, "not fetched", detail, is_audio=False)
                continue
            known: dict[str, Any] = {"language": self.language, "speaker": str(row.get("speaker_id") or "")}
            known["split"] = split_by_hash(long[1] if long else identity, self.dev_share)
            text = joined(row.get("rover_result") or row.get("text"))
            yield stretch_of(audio, identity, probe, begin, duration, text=text, **known)

    def _found(self) -> tuple[str, str]:
        file = os.path.abspath(os.path.expanduser(self.path or ""))
        if not os.path.isfile(file):
            raise InputError(f"'{self.path}' is not a file; set data.path to the JSON of WenetSpeech-Yue")
        return file, corpus_folder(self.audio, "WenetSpeech-Yue's recordings (data.audio)")


def pieces(spoken: list[tuple[float, float]], max_seconds: float) -> Iterator[tuple[float, float]]:
    """Stretches of speech joined to as few as `max_seconds` allows, from the first word of each to the last."""
    begin = end = None
    for start, stop in spoken:
        if begin is not None and end is not None and stop - begin > max_seconds:
            yield begin, end
            begin = None
        while stop - start > max_seconds:
            yield start, start + max_seconds
            start += max_seconds
        begin, end = (start if begin is None else begin), stop
    if begin is not None and end is not None and end > begin:
        yield begin, end


def read_textgrid(file: str) -> list[tuple[str, float, float, str]]:
    """Tier, begin, end and mark of every interval of a Praat TextGrid (long format); ValueError where there is none."""
    content = Path(file).read_bytes()
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    tiers = list(_TIER.finditer(text))
    ends = [tier.start() for tier in tiers[1:]] + [len(text)]
    found = [
        (tier[1], seconds_of(begin), seconds_of(end), mark.replace('""', '"'))
        for tier, stop in zip(tiers, ends, strict=True)
        for begin, end, mark in _INTERVAL.findall(text, tier.end(), stop)
    ]
    if not found:
        raise ValueError("no interval is in it")
    return found


def _textgrid_of(audio: str) -> str:
    part = Path(audio).parent.parent
    return str(part / "TextGrid" / f"{Path(audio).stem}.TextGrid")
