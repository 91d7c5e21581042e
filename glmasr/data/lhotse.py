"""Lhotse's cuts in; utterances out."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import fingerprint_of, safe_name, split_by_hash
from glmasr.data.recordings import Probe, joined, lines_of, remembering_probe, seconds_of, split_in_name, stretch_of
from glmasr.speech import InputError, Utterance

LANGUAGES = {"english": "en", "chinese": "zh", "mandarin": "zh", "cantonese": "yue"}
"""Lhotse's recipes write names where others write codes."""


@dataclass(frozen=True)
class LhotseCuts:
    """Cuts in JSONL, gzipped or not: one file or several in a list.

    Each supervision of a cut is an utterance, a cut without any is one without a text. A path is relative to `root`,
    null being the folder of the cuts. The split is in the file's name (`cuts_dev-clean.jsonl.gz`), or else `dev_share`
    of the cuts are dev. Only whole files on disk are read: no command, no URL, nothing mixed or changed on the fly.
    """

    path: str | list[str]
    root: str | None = None
    language: str = ""
    dev_share: float = 0.05

    @property
    def name(self) -> str:
        """The files' names."""
        return safe_name([file.removesuffix(".gz").removesuffix(".jsonl") for file in self._files()])

    def fingerprint(self) -> str:
        """A hash over the options, the cuts and every recording they name; InputError where a file is missing."""
        recordings: set[str] = set()
        for file in self._files():
            for line in lines_of(file):
                cut = _cut(line)
                source = _source(cut) if cut else None
                if source and isinstance(source.get("source"), str):
                    recordings.add(self._audio(file, source["source"]))
        return fingerprint_of(self, [*self._files(), *sorted(recordings)])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """The supervisions of each cut, file by file."""
        probe = remembering_probe()
        for file in self._files():
            split = split_in_name(os.path.basename(file))
            for number, line in enumerate(lines_of(file), 1):
                cut = _cut(line)
                if cut is None:
                    place = f"line {number} of '{file}'"
                    yield Skipped(place, "malformed", f"{place} is not a JSON object with an id; write the cuts again")
                    continue
                refused = refusal(cut)
                if refused:
                    yield refused
                    continue
                yield from self._utterances(cut, file, split, probe)

    def _utterances(self, cut: dict, file: str, split: str | None, probe: Probe) -> Iterator[Utterance | Skipped]:
        source = _source(cut)
        assert source is not None
        audio = self._audio(file, source["source"])
        supervisions = [one for one in cut.get("supervisions") or () if isinstance(one, dict)] or [{}]
        for place, one in enumerate(supervisions):
            identity = str(cut["id"]) if len(supervisions) == 1 else f"{cut['id']}#{one.get('id') or place}"
            try:
                begin = seconds_of(cut["start"]) + seconds_of(one.get("start", 0.0))
                duration = seconds_of(one.get("duration", cut["duration"]))
            except (KeyError, TypeError, ValueError) as error:
                yield Skipped(identity, "malformed", f"'{identity}' has no start and duration ({error})")
                continue
            language = str(one.get("language") or "")
            yield stretch_of(
                audio,
                identity,
                probe,
                max(0.0, begin),
                duration + min(0.0, begin),  # a supervision may begin before its cut, and so before the recording
                text=joined(one.get("text")),
                language=LANGUAGES.get(language.lower(), language) or self.language,
                speaker=str(one.get("speaker") or ""),
                split=split or split_by_hash(str(cut["id"]), self.dev_share),
            )

    def _audio(self, file: str, source: str) -> str:
        return os.path.join(os.path.abspath(os.path.expanduser(self.root or os.path.dirname(file))), source)

    def _files(self) -> list[str]:
        given = [self.path] if isinstance(self.path, str) else list(self.path or [])
        files = [os.path.abspath(os.path.expanduser(one)) for one in given if one]
        if not files:
            raise InputError("no cuts are named: set data.path to a cuts.jsonl.gz")
        for file in files:
            if not os.path.isfile(file):
                raise InputError(f"'{file}' is not a file; set data.path to a cuts.jsonl.gz")
        return files


def refusal(cut: dict) -> Skipped | None:
    """Why a cut is no stretch of one file on disk, or None."""
    name = str(cut["id"])
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut"):
        return Skipped(name, "kind of cut", f"'{name}' is a {cut['type']}; save it as audio and make new cuts of that")
    source = _source(cut)
    if source is None:
        return Skipped(name, "no recording", f"'{name}' names no recording; make cuts from recordings, not features")
    if source.get("type") == "command":
        detail = f"'{name}' is a command, which is never executed here ({source.get('source')})"
        return Skipped(name, "pipe", f"{detail}; save its audio to a file")
    if source.get("type") != "file" or not isinstance(source.get("source"), str):
        return Skipped(name, "not a file", f"'{name}' is a {source.get('type')}; save its audio to a file")
    if cut["recording"].get("transforms"):
        return Skipped(name, "changed on the fly", f"'{name}' has transforms; save its audio or use the original cut")
    return None


def _cut(line: str) -> dict[str, Any] | None:
    try:
        cut = json.loads(line)
    except ValueError:
        return None
    return cut if isinstance(cut, dict) and cut.get("id") else None


def _source(cut: dict) -> dict[str, Any] | None:
    """The file that holds the cut's (first) channel."""
    recording = cut.get("recording")
    sources = recording.get("sources") if isinstance(recording, dict) else None
    sources = [one for one in sources or () if isinstance(one, dict)]
    channel = cut.get("channel", 0)
    channel = channel[0] if isinstance(channel, list) and channel else channel
    return next((one for one in sources if channel in (one.get("channels") or ())), sources[0] if sources else None)
