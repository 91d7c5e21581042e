"""Catalogs on disk: what goes in comes out, subsets are fair and repeatable, preparation is cached and honest."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from glmasr.data.catalog import Skipped, joined_catalogs, open_catalog, prepare_catalog, take_turns, write_catalog
from glmasr.speech import InputError, Utterance


def utterance(n: int, **more) -> Utterance:
    return replace(Utterance(f"u{n}", f"audio/{n}.wav", 1.0 + n % 5, text=f"text {n}", speaker=f"s{n % 3}"), **more)


@dataclass
class Given:
    """A reader of utterances that are handed to it."""

    found: list
    version: str = "0" * 40
    name: str = "given"
    passes: list = field(default_factory=list)

    def fingerprint(self) -> str:
        return self.version

    def utterances(self):
        self.passes.append(1)
        yield from self.found


def test_utterances_come_back_as_they_went_in(tmp_path):
    rows = [
        Utterance("a", "x/a.flac", 1.25, 3600.125, "hello", "en", "anna", "dev"),
        Utterance("b", b"\x00RIFF\xff", 2.5, text=None, language="yue"),
        Utterance("ü", "y.wav", 0.1, text="你好", language="zh"),
    ]
    catalog = write_catalog(iter(rows), tmp_path / "c")
    assert list(catalog) == rows and list(open_catalog(tmp_path / "c")) == rows
    assert catalog.durations.dtype == np.float32 and catalog.durations.tolist() == [1.25, 2.5, np.float32(0.1)]
    assert catalog.languages == ("en", "yue", "zh") and catalog.texts() == ["hello", "你好"]
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_catalogs_joined_have_all_rows_and_subsets_of_them_too(tmp_path):
    first = write_catalog([utterance(n) for n in range(5)], tmp_path / "a").rows(np.array([4, 1]))
    second = write_catalog([utterance(n, language="yue") for n in range(7, 9)], tmp_path / "b")
    both = joined_catalogs([first, second])
    assert [one.id for one in both] == ["u4", "u1", "u7", "u8"]
    assert both.durations.tolist() == [5.0, 2.0, 3.0, 4.0] and both.languages_by_row.tolist() == [0, 0, 1, 1]


def test_a_failed_writing_leaves_nothing(tmp_path):
    def rows():
        yield utterance(0)
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        write_catalog(rows(), tmp_path / "c")
    with pytest.raises(InputError, match="no utterances"):
        write_catalog([], tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_opening_what_is_no_catalog_is_an_input_error(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="prepare"):
            open_catalog(folder)


def test_conditions_are_met_and_subsets_nest(tmp_path):
    rows = [utterance(n, split="dev" if n % 4 == 0 else "train", text=None if n % 2 else "t") for n in range(40)]
    catalog = write_catalog(rows, tmp_path / "c")
    kept = catalog.subset(split="train", labelled=True, min_seconds=2, max_seconds=4)
    expected = [u for u in rows if u.split == "train" and u.text and 2 <= u.duration_seconds <= 4]
    assert list(kept) == expected and len(expected) > 3
    assert list(catalog.subset(split="train").subset(labelled=True)) == [
        u for u in rows if u.split == "train" and u.text
    ]
    np.testing.assert_array_equal(kept.durations, [u.duration_seconds for u in expected])


def test_an_empty_subset_says_which_splits_there_are(tmp_path):
    rows = [utterance(n, split="dev" if n < 2 else "train", text=None) for n in range(5)]
    catalog = write_catalog(rows, tmp_path / "c")
    with pytest.raises(InputError, match=r"split=test.*dev \(2\), train \(3\)"):
        catalog.subset(split="test")
    with pytest.raises(InputError, match=r"labelled=True.*0 have a text"):
        catalog.subset(labelled=True)
    with pytest.raises(InputError, match=r"max_total_minutes=0\.001"):
        catalog.subset(max_total_minutes=0.001)


def test_a_label_budget_is_filled_fairly_and_repeats(tmp_path):
    shares = ["loud"] * 180 + ["quiet"] * 12 + ["third"] * 60
    rows = [utterance(n, speaker=speaker, duration_seconds=2.0) for n, speaker in enumerate(shares)]
    catalog = write_catalog(rows, tmp_path / "c")
    ids = [[u.id for u in catalog.subset(max_total_minutes=1, seed=seed)] for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2] and len(ids[0]) == 30
    chosen = catalog.subset(max_total_minutes=1, seed=1)
    assert Counter(u.speaker for u in chosen) == {"loud": 10, "quiet": 10, "third": 10}
    larger = catalog.subset(max_total_minutes=2, seed=1)
    assert Counter(u.speaker for u in larger) == {"loud": 24, "quiet": 12, "third": 24}
    assert set(ids[0]) < {u.id for u in larger}
    assert len(catalog.subset(max_total_minutes=1000)) == len(rows)


def test_so_many_of_each_text_are_drawn_fairly_and_repeat(tmp_path):
    said = [(f"word {n % 4}", f"s{n // 4 % 3}") for n in range(48)]  # four takes of each word by each speaker
    rows = [utterance(n, text=text, speaker=speaker) for n, (text, speaker) in enumerate(said)]
    catalog = write_catalog([*rows, utterance(48, text=None)], tmp_path / "c")
    drawn = [[u.id for u in catalog.subset(max_per_text=3, seed=seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    chosen = Counter((u.text, u.speaker) for u in catalog.subset(max_per_text=3, seed=1))
    assert chosen == dict.fromkeys(said, 1)
    assert set(drawn[0]) < {u.id for u in catalog.subset(max_per_text=5, seed=1)}
    assert len(catalog.subset(max_per_text=1000)) == 48
    assert len(catalog.subset(max_per_text=2, max_total_minutes=0.1)) < 4 * 2
    with pytest.raises(InputError, match=r"max_per_text=2.*0 have a text"):
        write_catalog([utterance(0, text=None)], tmp_path / "mute").subset(max_per_text=2)


def test_positions_halve_a_split_whatever_else_is_asked(tmp_path):
    rows = [utterance(n, split="dev" if n % 3 else "train", text=None if n % 4 == 1 else "t") for n in range(60)]
    catalog = write_catalog(rows, tmp_path / "c")
    dev = [u for u in rows if u.split == "dev"]
    assert list(catalog.subset(split="dev", positions="even")) == dev[::2]
    assert list(catalog.subset(split="dev", positions="odd")) == dev[1::2]
    longer = catalog.subset(split="dev", positions="odd", labelled=True, min_seconds=2)
    assert list(longer) == [u for u in dev[1::2] if u.text and u.duration_seconds >= 2] and 3 < len(longer) < 20
    with pytest.raises(InputError, match="'all' are no positions"):
        catalog.subset(positions="all")


def test_turns_are_a_permutation():
    turns = take_turns(np.array(["a", "b", "a", "a"]), np.random.default_rng(0))
    assert sorted(turns) == [0, 1, 2, 3] and set(np.array(["a", "b", "a", "a"])[turns[:2]]) == {"a", "b"}


def test_a_corpus_is_prepared_once_and_again_when_it_changes(tmp_path):
    source = Given([utterance(n) for n in range(3)])
    prepare_catalog(source, str(tmp_path))
    assert len(prepare_catalog(source, str(tmp_path))) == 3 and len(source.passes) == 1
    source.version = "1" * 40
    source.found.append(utterance(3))
    assert len(prepare_catalog(source, str(tmp_path))) == 4
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["given-0000000000", "given-1111111111"]


def test_skipped_files_are_counted_by_cause_and_listed(tmp_path, capsys):
    bad = [
        Skipped("bad.wav", "empty", "'bad.wav' is empty"),
        Skipped("lost.txt", "transcript without audio", "…", False),
    ]
    catalog = prepare_catalog(Given([utterance(n) for n in range(40)] + bad), str(tmp_path))
    assert len(catalog) == 40
    message = capsys.readouterr().err
    assert "40 utterances" in message and "skipped 2 (empty 1, transcript without audio 1)" in message
    listing = (tmp_path / "given-0000000000" / "skipped.tsv").read_text()
    assert listing.splitlines()[0] == "bad.wav\tempty\t'bad.wav' is empty"


def test_too_many_skipped_files_fail_and_name_the_first(tmp_path):
    bad = [Skipped(f"{n}.wav", "missing", f"'{n}.wav' does not exist") for n in range(2)]
    source = Given([utterance(n) for n in range(20)] + bad)
    with pytest.raises(InputError, match=r"2 of 22 recordings.*missing 2.*'0\.wav' does not exist"):
        prepare_catalog(source, str(tmp_path))
    assert not (tmp_path / "given-0000000000" / "catalog").exists()
    assert len(prepare_catalog(source, str(tmp_path), max_skipped_share=0.1)) == 20


def test_stray_transcripts_alone_never_fail_a_corpus(tmp_path):
    strays = [Skipped(f"{n}.txt", "transcript without audio", "…", is_audio=False) for n in range(9)]
    assert len(prepare_catalog(Given([utterance(0), *strays]), str(tmp_path))) == 1


def test_an_id_used_twice_is_skipped(tmp_path):
    source = Given([*(utterance(n) for n in range(30)), utterance(3)])
    assert len(prepare_catalog(source, str(tmp_path))) == 30
    assert "id used twice" in (tmp_path / "given-0000000000" / "skipped.tsv").read_text()


def test_an_empty_corpus_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="holds no recordings"):
        prepare_catalog(Given([]), str(tmp_path))
