"""A dataset of the Hugging Face hub, or one on disk, in; utterances out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import fingerprint_of, safe_name
from glmasr.data.recordings import split_in_name
from glmasr.data.shards import Columns
from glmasr.speech import InputError, Utterance


@dataclass(frozen=True)
class Hub:
    """What `datasets.load_dataset` knows by its id, or finds in a folder, or what `save_to_disk` left there.

    `splits` says which of the dataset's splits is train, dev and test (`train.100+train.360` is fine); null takes all,
    each for what its name says. `audio`, `text`, `id` and `speaker` name columns, null for none. `folder` is a folder
    of files inside the dataset. Audio is never decoded here, and no dataset's own code is run.
    """

    path: str
    config: str | None = None
    folder: str | None = None
    revision: str | None = None
    splits: dict[str, str] | None = None
    audio: str = "audio"
    text: str | None = "text"
    id: str | None = "id"
    speaker: str | None = None
    language: str = ""
    dev_share: float = 0.05

    @property
    def name(self) -> str:
        """The dataset's name, and its configuration's or folder's."""
        return "-".join(filter(None, [safe_name([self.path]), self.config, self.folder and safe_name([self.folder])]))

    def fingerprint(self) -> str:
        """A hash over the options and the dataset's files here, fetched first; InputError where that fails."""
        files = [file["filename"] for _, _, table in self._tables() for file in table.cache_files]
        return fingerprint_of(self, sorted(files))

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Split by split, row by row; InputError where a column that is named is not there."""
        columns = Columns(self.audio, self.text, self.id, self.speaker, self.language, self.dev_share)
        root = os.path.abspath(self.path) if os.path.isdir(self.path) else ""
        for split, theirs, table in self._tables():
            columns.check(table.column_names, self.path)
            if isinstance(table.features[self.audio], datasets.Audio):
                table = table.cast_column(self.audio, datasets.Audio(decode=False))
            table = table.select_columns([name for name in table.column_names if name in columns.wanted])
            for number, row in enumerate(table):
                yield columns.utterance(dict(row), f"{theirs}/{number}", split, root)

    def _tables(self) -> list[tuple[str | None, str, Any]]:
        """Our split (None where its name says nothing), their split, its table."""
        if not self.path:
            raise InputError("no dataset is named: set data.path to an id on the hub (owner/name) or to a folder")
        try:
            found = self._load()
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            remedy = "check data.path, data.config and the network, and log in where the dataset asks for it"
            raise InputError(f"the dataset '{self.path}' cannot be loaded ({reason}); {remedy}") from error
        if isinstance(found, datasets.Dataset):
            return [(None, "train", found)]
        if self.splits is None:
            return [(split_in_name(theirs), theirs, table) for theirs, table in found.items()]
        tables = []
        for ours, named in self.splits.items():
            for theirs in named.split("+"):
                if theirs not in found:
                    known = ", ".join(map(str, found))
                    raise InputError(f"'{self.path}' has no split '{theirs}': set data.splits from {known}")
                tables.append((ours, theirs, found[theirs]))
        return tables

    def _load(self) -> Any:
        saved = ("state.json", "dataset_dict.json")
        if any(os.path.isfile(os.path.join(self.path, name)) for name in saved):
            return datasets.load_from_disk(self.path)
        return datasets.load_dataset(self.path, self.config, data_dir=self.folder, revision=self.revision)
