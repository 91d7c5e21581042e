"""Kaldi's and ESPnet's data directories in; utterances out."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import fingerprint_of, safe_name, split_by_hash
from glmasr.data.recordings import (
    Probe,
    corpus_folder,
    files_below,
    joined,
    lines_of,
    pairs_of,
    remembering_probe,
    seconds_of,
    split_in_name,
    stretch_of,
)
from glmasr.speech import InputError, Utterance

TABLES = ("wav.scp", "segments", "text", "utt2spk", "utt2lang")


@dataclass(frozen=True)
class Kaldi:
    """A folder with `wav.scp` and, as far as known, `segments`, `text`, `utt2spk`, `utt2lang`; or a folder of such.

    A path in wav.scp is relative to `root`, null being the folder of that wav.scp; ESPnet's are relative to the recipe.
    A command (an entry that ends in `|`) is never executed. The split is in the folder's name (`dev_clean`), or else
    `dev_share` of the utterances are dev. Ids are prefixed by the folder where there are several.
    """

    path: str
    root: str | None = None
    language: str = ""
    dev_share: float = 0.05

    @property
    def name(self) -> str:
        """The folder's own name."""
        return safe_name([self.path])

    def fingerprint(self) -> str:
        """A hash over the options, the tables and every recording they name; InputError where there is no wav.scp."""
        files = []
        for home in self._homes():
            files += [os.path.join(home, table) for table in TABLES]
            files += [self._audio(home, entry) for entry in pairs_of(os.path.join(home, "wav.scp")).values()]
        return fingerprint_of(self, files)

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Folder by folder in the order of segments, or of wav.scp; then the texts of utterances that are not there."""
        probe, homes = remembering_probe(), self._homes()
        for home in homes:
            tables = {table: _table(home, table) for table in ("text", "utt2spk", "utt2lang")}
            for stretch in _stretches(home):
                if isinstance(stretch, Skipped):
                    yield stretch
                    continue
                prefix = f"{os.path.basename(home)}/" if len(homes) > 1 else ""
                yield self._utterance(home, *stretch, prefix, tables, probe)
            for identity in tables["text"]:
                detail = f"'{identity}' in '{home}/text' has no recording"
                yield Skipped(identity, "transcript without audio", detail, is_audio=False)

    def _utterance(
        self,
        home: str,
        identity: str,
        entry: str,
        begin: float,
        duration: float | None,
        prefix: str,
        tables: dict[str, dict[str, str]],
        probe: Probe,
    ) -> Utterance | Skipped:
        text = joined(tables["text"].pop(identity, None))
        refused = refusal(identity, entry)
        if refused:
            return refused
        return stretch_of(
            self._audio(home, entry),
            prefix + identity,
            probe,
            begin,
            duration,
            text=text,
            language=tables["utt2lang"].get(identity) or self.language,
            speaker=tables["utt2spk"].get(identity, ""),
            split=split_in_name(os.path.basename(home)) or split_by_hash(identity, self.dev_share),
        )

    def _audio(self, home: str, entry: str) -> str:
        return os.path.join(os.path.abspath(os.path.expanduser(self.root or home)), entry)

    def _homes(self) -> list[str]:
        found = files_below(corpus_folder(self.path, "a Kaldi directory"), ("wav.scp",))
        homes = [os.path.dirname(file) for file in found if os.path.basename(file) == "wav.scp"]
        if not homes:
            raise InputError(f"there is no wav.scp under '{self.path}'; set data.path to a Kaldi data directory")
        return homes


def refusal(identity: str, entry: str) -> Skipped | None:
    """Why an entry of wav.scp is no file that can be read in place, or None."""
    if entry.endswith("|"):
        detail = f"'{identity}' is a command, which is never executed here ({entry}); write what it prints into a file"
        return Skipped(identity, "pipe", f"{detail} and name that in wav.scp")
    if re.search(r":\d+$", entry):
        detail = f"'{identity}' lies inside an archive ({entry}); copy it out, say with wav-copy, and name the file"
        return Skipped(identity, "archive", detail)
    if not entry or entry == "-":
        return Skipped(identity, "malformed", f"'{identity}' has no file in wav.scp; name one")
    return None


def _stretches(home: str) -> Iterator[tuple[str, str, float, float | None] | Skipped]:
    """Id, entry of wav.scp, begin and duration of every utterance; without segments a recording is one."""
    entries = pairs_of(os.path.join(home, "wav.scp"))
    if not os.path.isfile(os.path.join(home, "segments")):
        yield from ((identity, entry, 0.0, None) for identity, entry in entries.items())
        return
    for line in lines_of(os.path.join(home, "segments")):
        fields = line.split()
        try:
            identity, recording, begin, end = fields[0], fields[1], seconds_of(fields[2]), seconds_of(fields[3])
        except (IndexError, ValueError):
            yield Skipped(fields[0], "malformed", f"'{line}' in '{home}/segments' is not 'id recording begin end'")
            continue
        if recording not in entries:
            yield Skipped(identity, "missing", f"'{recording}' of segment '{identity}' is not in '{home}/wav.scp'")
            continue
        yield identity, entries[recording], begin, None if end == -1 else end - begin  # -1 is Kaldi's "to the end"


def _table(home: str, name: str) -> dict[str, str]:
    file = os.path.join(home, name)
    return pairs_of(file) if os.path.isfile(file) else {}
