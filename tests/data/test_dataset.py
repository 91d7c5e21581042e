"""Utterances become batches, the same whoever loads them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from glmasr.augment.noise import NoiseMixing
from glmasr.augment.speed import Speed
from glmasr.augment.talker import TalkerMixing
from glmasr.augment.volume import Volume
from glmasr.augment.wordless import Wordless
from glmasr.data.catalog import Catalog, write_catalog
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.data.sampler import ByLength, RankBatches, in_order
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.speech import RATE_HZ, InputError, Utterance


class Letters:
    """A tokenizer of code points."""

    def encode(self, text: str, language: str = "") -> list[int]:
        return [ord(letter) for letter in text]


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    rows = []
    for n in range(6):
        path = tmp_path / f"{n}.wav"
        write_audio(path, np.random.default_rng(n).uniform(-0.5, 0.5, 1600 * (n + 2)).astype(np.float32))
        rows.append(Utterance(f"u{n}", str(path), 0.1 * (n + 2), text="a" * (n + 1)))
    return write_catalog(rows, tmp_path / "catalog")


def load(dataset: SpeechDataset, workers: int, count: int = 6) -> list:
    batches = RankBatches(ByLength(dataset.catalog.durations, 1.0, 0.05, seed=3), count=count)
    return list(DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers))


def damaged(catalog: Catalog, seed: int = 0) -> SpeechDataset:
    changes = [Speed(0.9, 1.1, 0.5), Volume(-20.0, 0.0, 1.0)]
    return SpeechDataset(catalog, changes, NoiseMixing(-5.0, 5.0, 0.8, None), Letters(), seed)


def test_a_batch_holds_the_audio_padded_with_zeros(catalog):
    [batch] = DataLoader(
        SpeechDataset(catalog, tokenizer=Letters()), batch_sampler=in_order(catalog.durations, 9), collate_fn=collate
    )
    assert batch.ids == ("u5", "u4", "u3", "u2", "u1", "u0") and batch.index == 0 and batch.clean is None
    assert batch.lengths.tolist() == [1600 * n for n in (7, 6, 5, 4, 3, 2)] and batch.waveform.shape == (6, 11200)
    for row, n in enumerate(batch.lengths.tolist()):
        np.testing.assert_array_equal(batch.waveform[row, :n], read_audio(catalog[5 - row].audio))
        assert not batch.waveform[row, n:].any()
    assert batch.token_lengths.tolist() == [6, 5, 4, 3, 2, 1] and batch.tokens[5].tolist() == [97, -1, -1, -1, -1, -1]
    assert batch.texts[5] == "a"


def test_one_worker_loads_what_the_main_process_loads(catalog):
    alone, helped = load(damaged(catalog), 0), load(damaged(catalog), 1)
    assert len(alone) == len(helped) == 6
    for one, other in zip(alone, helped, strict=True):
        assert one.ids == other.ids and one.index == other.index
        for name in ("waveform", "clean", "lengths", "tokens", "token_lengths"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_damage_is_a_function_of_seed_batch_and_row(catalog):
    first, again = damaged(catalog)[(4, 9)], damaged(catalog)[(4, 9)]
    assert torch.equal(first.waveform, again.waveform) and first.index == 9
    for other in (damaged(catalog)[(4, 10)], damaged(catalog, seed=1)[(4, 9)]):
        assert first.waveform.shape != other.waveform.shape or not torch.equal(first.waveform, other.waveform)


def test_clean_has_the_volume_but_not_the_noise(catalog):
    item = SpeechDataset(catalog, [Volume(-20.0, -20.0, 1.0)], NoiseMixing(0.0, 0.0, 1.0, None))[(2, 0)]
    np.testing.assert_allclose(item.clean, 0.1 * read_audio(catalog[2].audio), rtol=1e-5)
    noise = item.waveform - item.clean
    assert float(noise.pow(2).mean() / item.clean.pow(2).mean()) == pytest.approx(1.0, abs=1e-3)


def test_noise_that_works_in_place_leaves_clean_alone(catalog):
    def silence(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        waveform[:] = 0
        return waveform

    item = SpeechDataset(catalog, noise=silence)[(2, 0)]
    assert not item.waveform.any() and item.clean.any()


def test_an_unreadable_utterance_gives_its_place_with_one_warning(catalog):
    for n in (1, 3):
        Path(catalog[n].audio).write_bytes(b"")
    dataset = SpeechDataset(catalog)
    keys = [(row, 7) for row in range(6)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batch = collate(dataset.__getitems__(keys))
        dataset.__getitems__(keys)
    assert len(caught) == 1 and "1.wav" in str(caught[0].message) and dataset.unreadable == 4
    assert len(batch.ids) == 6 and not {"u1", "u3"} & set(batch.ids) and {"u0", "u2", "u4", "u5"} == set(batch.ids)


def test_a_batch_of_nothing_readable_takes_its_neighbors(catalog):
    """With utterances as long as a batch, a broken file is alone in its own."""
    Path(catalog[0].audio).unlink()
    with pytest.warns(RuntimeWarning, match="does not exist"):
        items = SpeechDataset(catalog).__getitems__([(0, 5)])
    assert [item.id for item in items] == [catalog[1].id] and items[0].index == 5


def test_where_all_are_gone_it_is_an_input_error(catalog):
    for one in list(catalog):
        Path(one.audio).unlink(missing_ok=True)
    with pytest.warns(RuntimeWarning), pytest.raises(InputError, match=r"batch 5.*nor 8 more.*does not exist"):
        SpeechDataset(catalog).__getitems__([(0, 5)])


def test_a_recording_cut_short_since_gives_its_place(catalog):
    """Its transcript would say more than can be heard."""
    path = Path(catalog[0].audio)
    write_audio(path, read_audio(str(path))[: -RATE_HZ // 8])
    dataset = SpeechDataset(catalog)
    with pytest.warns(RuntimeWarning, match="has become shorter"):
        items = dataset.__getitems__([(0, 5), (1, 5)])
    assert [item.id for item in items] == [catalog[1].id] * 2 and dataset.unreadable == 1


def test_labels_are_demanded_where_there_is_a_tokenizer(tmp_path):
    write_audio(tmp_path / "a.wav", np.zeros(1600, np.float32))
    catalog = write_catalog([Utterance("a", str(tmp_path / "a.wav"), 0.1)], tmp_path / "c")
    assert SpeechDataset(catalog)[(0, 0)].tokens is None
    with pytest.raises(InputError, match="'a' has no transcript"):
        SpeechDataset(catalog, tokenizer=Letters())[(0, 0)]


def test_bytes_and_offsets_are_served(tmp_path):
    ramp = np.linspace(-0.9, 0.9, 16_000).astype(np.float32)
    write_audio(tmp_path / "a.wav", ramp)
    rows = [Utterance("part", (tmp_path / "a.wav").read_bytes(), 0.25, offset_seconds=0.5)]
    item = SpeechDataset(write_catalog(rows, tmp_path / "c"))[(0, 0)]
    np.testing.assert_allclose(item.waveform, ramp[8000:12000], atol=1e-4)


def test_a_talker_of_the_batch_is_in_what_is_heard_and_not_in_what_is_clean(catalog):
    mixing = TalkerMixing(0.0, 0.0, 1.0)
    keys = [(row, 7) for row in range(len(catalog))]
    alone, mixed, again = (
        collate(SpeechDataset(catalog, seed=1, talker=talker).__getitems__(keys)) for talker in (None, mixing, mixing)
    )
    assert torch.equal(mixed.clean, alone.waveform) and torch.equal(mixed.waveform, again.waveform)
    changed = (mixed.waveform != mixed.clean).sum(1) / mixed.lengths
    assert (changed > 0).all() and (changed <= 0.5).all()


def test_noise_alone_takes_the_place_of_an_utterance_and_has_nothing_to_transcribe(catalog):
    plain = SpeechDataset(catalog, tokenizer=Letters())
    quiet = SpeechDataset(catalog, tokenizer=Letters(), wordless=Wordless(1.0))
    found = collate([quiet[(row, 0)] for row in range(3)])
    assert found.texts == ("", "", "") and found.token_lengths.tolist() == [0, 0, 0] and found.tokens.shape == (3, 0)
    said = collate([plain[(row, 0)] for row in range(3)])
    assert found.lengths.tolist() == said.lengths.tolist() and not torch.equal(found.waveform, said.waveform)
    some = SpeechDataset(catalog, tokenizer=Letters(), wordless=Wordless(0.5))
    texts = [some[(row, index)].text for row in range(6) for index in range(20)]
    assert 40 < texts.count("") < 80 and texts == [some[(row, index)].text for row in range(6) for index in range(20)]
    never = SpeechDataset(catalog, tokenizer=Letters(), wordless=Wordless(0.0))
    assert torch.equal(never[(2, 3)].waveform, plain[(2, 3)].waveform) and never[(2, 3)].text == plain[(2, 3)].text


def counting(monkeypatch) -> list[str]:
    """Paths of what is decoded from now on."""
    read: list[str] = []

    def reading(path, *part):
        read.append(str(path))
        return read_audio(path, *part)

    monkeypatch.setattr("glmasr.data.dataset.read_audio", reading)
    return read


def test_what_is_kept_decoded_is_not_decoded_again_and_changes_no_batch(catalog, monkeypatch):
    read, keys = counting(monkeypatch), [[(row, index) for row in range(6)] for index in range(3)]
    plain, keeping = damaged(catalog), damaged(catalog)
    keeping.room_bytes = 1e9
    for batch in keys:
        for a, b in zip(plain.__getitems__(batch), keeping.__getitems__(batch), strict=True):
            assert torch.equal(a.waveform, b.waveform) and torch.equal(a.clean, b.clean)
    assert len(read) == 6 * 3 + 6


def test_of_what_is_kept_nothing_is_looked_up_again(catalog, monkeypatch):
    dataset = SpeechDataset(catalog, tokenizer=Letters(), decoded_mb=1)
    before = dataset.__getitems__([(row, 1) for row in range(6)])
    assert all(not utterance.audio for utterance, _ in dataset.decoded.values())  # which may be a whole file's bytes
    monkeypatch.setattr(type(catalog), "__getitem__", lambda *_: pytest.fail("looked up"))
    after = dataset.__getitems__([(row, 1) for row in range(6)])
    assert [(item.id, item.text) for item in before] == [(item.id, item.text) for item in after]
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(before, after, strict=True))


def test_no_more_is_kept_than_there_is_room_for(catalog, monkeypatch):
    read = counting(monkeypatch)
    seconds = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]  # the first two and the third take 0.9 s
    dataset = SpeechDataset(catalog, decoded_mb=0.95 * RATE_HZ * 4 / 1e6)
    for index in range(2):
        dataset.__getitems__([(row, index) for row in range(6)])
    assert sum(len(waveform) for _, waveform in dataset.decoded.values()) / RATE_HZ <= 0.95 < sum(seconds)
    assert list(dataset.decoded) == [0, 1, 2] and len(read) == 6 + 3


def test_who_changes_a_waveform_in_place_changes_no_kept_one(catalog):
    def louder(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        waveform *= 2
        return waveform

    dataset = SpeechDataset(catalog, [louder], decoded_mb=1)
    first, again = dataset[0, 0].waveform.clone(), dataset[0, 0].waveform
    assert torch.equal(first, again) and torch.equal(first, 2 * torch.from_numpy(read_audio(catalog[0].audio)))
