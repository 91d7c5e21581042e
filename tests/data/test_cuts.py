"""Long recordings: pieces that end in pauses and point into the file, once heard never heard again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glmasr.data import cuts
from glmasr.data.catalog import Skipped
from glmasr.data.cuts import LongRecordings, hear, pieces_of
from glmasr.frontend.audio import probe_audio, read_audio, read_blocks, resample, write_audio
from glmasr.frontend.vad import FRAME_SECONDS, speech_probabilities
from glmasr.speech import RATE_HZ, InputError, Utterance
from tests.small import REPOSITORY


@pytest.fixture(scope="module")
def clips(spoken) -> list[np.ndarray]:
    return [clip.numpy() for clip in spoken]


@pytest.fixture(scope="module")
def talk(clips) -> np.ndarray:
    """22 s: four clips, 3 s of nothing, four clips."""
    pause, nothing = np.zeros(4_000, np.float32), np.zeros(3 * RATE_HZ, np.float32)
    turn = [part for clip in clips for part in (pause, clip)]
    return np.concatenate([*turn, nothing, *turn])


@pytest.fixture
def folder(talk, clips, tmp_path) -> Path:
    """Two shows, a recording with nobody in it, one that is none, and one of a kind that cannot be read."""
    home = tmp_path / "shows"
    for name in ("ann/one.wav", "dev/ben/two.flac"):
        (home / name).parent.mkdir(parents=True)
        write_audio(home / name, talk)
    write_audio(home / "silence.wav", np.zeros(3 * RATE_HZ, np.float32))
    (home / "broken.mp3").write_bytes(b"no music is in here")
    (home / "video.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    return home


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The names of what is listened to."""
    names, real = [], cuts.hear

    def counting(path):
        names.append(os.path.basename(path))
        return real(path)

    monkeypatch.setattr(cuts, "hear", counting)
    return names


def reader(folder: Path, **more) -> LongRecordings:
    return LongRecordings(str(folder), **{"workers": 0, "max_seconds": 8.0, **more})


def all_speech(seconds: float) -> np.ndarray:
    return np.full(int(seconds / FRAME_SECONDS) + 1, 0.9, np.float32)


def test_neighbors_are_joined_while_they_fit_and_the_pause_is_short():
    probabilities = all_speech(60)
    assert pieces_of([(0, 3), (3.5, 6), (6.9, 10)], probabilities, 2, 10) == [(0, 10)]
    assert pieces_of([(0, 3), (3.5, 6), (6.9, 10.1)], probabilities, 2, 10) == [(0, 6), (6.9, 10.1)]
    assert pieces_of([(0, 3), (4.1, 6.1)], probabilities, 2, 10) == [(0, 3), (4.1, 6.1)]
    assert pieces_of([(0, 3), (4.1, 6.1)], probabilities, 2, 10, gap_seconds=1.2) == [(0, 6.1)]


def test_what_is_short_is_left_out_only_where_it_is_alone():
    probabilities = all_speech(60)
    assert pieces_of([(0, 1), (3, 4)], probabilities, 2, 10) == []
    assert pieces_of([(0, 1), (1.5, 2.5), (9, 10)], probabilities, 2, 10) == [(0, 2.5)]
    # The last second finds the piece before it full: the pause before that is taken, though the piece is shorter.
    assert pieces_of([(0, 5), (5.2, 9.8), (10, 11)], probabilities, 2, 10) == [(0, 5), (5.2, 11)]
    assert pieces_of([], probabilities, 2, 10) == []


def test_speech_without_a_pause_is_cut_where_it_is_quietest_in_the_second_half():
    probabilities = all_speech(60)
    probabilities[[50, 200, 270]] = 0.4, 0.6, 0.5
    (start, first), *rest = pieces_of([(0, 25)], probabilities, 2, 10)
    assert start == 0 and first == pytest.approx(270.5 * FRAME_SECONDS)
    assert rest[0][0] == first and rest[-1][1] == 25
    # Frame 200 is in the second half of 7 s, and nothing shorter than min is left behind a cut.
    assert pieces_of([(0, 8.5)], probabilities, 2, 7)[0][1] == pytest.approx(200.5 * FRAME_SECONDS)
    assert pieces_of([(0, 10.5)], all_speech(60), 2, 10)[1][0] == pytest.approx(8.5, abs=FRAME_SECONDS)


@pytest.mark.parametrize("seed", range(5))
def test_pieces_keep_their_promises_whatever_the_speech(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.exponential(3.0, 400).round(3) * rng.choice([1, 1, 1, 12], 400) + 0.25
    pauses = rng.exponential(0.6, 400).round(3)
    ends = np.cumsum(lengths + pauses)
    regions = list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))
    probabilities = rng.random(int(ends[-1] / FRAME_SECONDS) + 1).astype(np.float32)
    for least, most in ((2.0, 30.0), (5.0, 10.0), (0.5, 4.0)):
        pieces = pieces_of(regions, probabilities, least, most)
        assert all(least - 1e-6 <= stop - start <= most + 1e-6 for start, stop in pieces)
        assert all(stop <= begin for (_, stop), (begin, _) in pairwise(pieces))
        chained = sum(chain[-1][1] - chain[0][0] >= least for chain in cuts._chains(regions, 1.0))
        kept = [any(start - 1e-6 <= (a + b) / 2 <= stop + 1e-6 for start, stop in pieces) for a, b in regions]
        alone = [chain[-1][1] - chain[0][0] < least for chain in cuts._chains(regions, 1.0) for _ in chain]
        assert chained and [not one for one in alone] == kept


def test_blocks_join_to_the_whole_at_any_rate(talk, tmp_path):
    rng = np.random.default_rng(0)
    for rate_hz, channels in ((16_000, 1), (44_100, 2), (8_000, 1)):
        waveform = resample(talk[: 6 * RATE_HZ], RATE_HZ, rate_hz)
        waveform = waveform[:, None] * rng.uniform(0.5, 1, channels)
        soundfile.write(tmp_path / "a.wav", waveform, rate_hz, subtype="FLOAT")
        whole = read_audio(str(tmp_path / "a.wav"))
        for block_seconds in (0.37, 2.0, 60.0):
            blocks = list(read_blocks(str(tmp_path / "a.wav"), block_seconds))
            assert max(map(len, blocks)) <= block_seconds * RATE_HZ + 2_000
            assert len(blocks) >= 6 / block_seconds - 1 and {block.dtype for block in blocks} == {np.dtype("f4")}
            np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)


def test_a_recording_heard_in_blocks_is_heard_as_a_whole(talk, tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", talk)
    waveform = read_audio(str(tmp_path / "a.wav"))
    monkeypatch.setattr(cuts, "read_blocks", lambda path: read_blocks(path, 0.7))
    probabilities, seconds = hear(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(probabilities, speech_probabilities(waveform, last=True)[0], atol=1e-6)
    assert seconds == len(talk) / RATE_HZ


def test_pieces_point_into_the_recordings(folder, talk, clips):
    found = list(reader(folder, language="en").utterances())
    skipped = {os.path.basename(one.name): one for one in found if isinstance(one, Skipped)}
    assert {name: (one.cause, one.is_audio) for name, one in skipped.items()} == {
        "silence.wav": ("no speech", False),
        "broken.mp3": ("not audio", True),
        "video.m4a": ("not audio", True),
    }
    pieces = [one for one in found if isinstance(one, Utterance)]
    assert next((one.speaker, one.split, one.language) for one in pieces if "two" in one.id) == ("ben", "dev", "en")
    assert {one.speaker for one in pieces if one.id.startswith("ann/one@")} == {"ann"}
    ones = [one for one in pieces if one.id.startswith("ann/one@")]
    assert [replace(one, id="", audio="", speaker="", split="") for one in pieces if one not in ones] == [
        replace(one, id="", audio="", speaker="", split="") for one in ones
    ]
    spoken = np.zeros(len(talk), bool)
    for one in ones:
        assert one.id == f"ann/one@{round(one.offset_seconds * 1000)}" and 2 <= one.duration_seconds <= 8
        assert one.audio == str(folder / "ann" / "one.wav")
        waveform = read_audio(one.audio, one.offset_seconds, one.duration_seconds)
        assert len(waveform) == round(one.duration_seconds * RATE_HZ)
        start = round(one.offset_seconds * RATE_HZ)
        spoken[start : start + len(waveform)] = True
        edge = RATE_HZ // 50
        assert np.abs(waveform[:edge]).max() < 0.05 and np.abs(waveform[-edge:]).max() < 0.05
    silence = slice(sum(map(len, clips)) + 16_000 + RATE_HZ, -1 - sum(map(len, clips)) - 16_000 - RATE_HZ)
    assert not spoken[silence].any() and np.square(talk[spoken]).sum() > 0.98 * np.square(talk).sum()


def test_a_recording_is_dev_or_train_as_a_whole(talk, tmp_path):
    for number in range(12):
        write_audio(tmp_path / f"{number}.wav", talk[: 7 * RATE_HZ])
    found = list(reader(tmp_path, dev_share=0.4, max_seconds=4.0).utterances())
    splits = {one.audio: {other.split for other in found if other.audio == one.audio} for one in found}
    assert len(found) > 12 and all(len(split) == 1 for split in splits.values())
    assert set.union(*splits.values()) == {"train", "dev"}


def test_processes_change_neither_what_is_found_nor_its_order(folder):
    alone, together = (list(reader(folder, workers=workers).utterances()) for workers in (0, 3))
    assert alone == together and alone


def test_what_was_heard_is_not_heard_again(folder, tmp_path, heard):
    cache = tmp_path / "cache"
    first = list(reader(folder, cache=str(cache)).utterances())
    assert sorted(heard) == ["broken.mp3", "one.wav", "silence.wav", "two.flac", "video.m4a"]
    del heard[:]
    assert list(reader(folder, cache=str(cache)).utterances()) == first
    assert sorted(heard) == ["broken.mp3", "video.m4a"], "what failed may be whole the next time"
    del heard[:]
    os.utime(folder / "ann" / "one.wav", (1, 1))
    list(reader(folder, cache=str(cache)).utterances())
    assert "one.wav" in heard and "two.flac" not in heard
    del heard[:]
    assert list(reader(folder, cache=str(cache), max_seconds=5.0).utterances()) != first and "two.flac" in heard
    assert not [path for path in cache.iterdir() if path.suffix != ".json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pieces": [1]}', '{"pieces": [["a", 2]]}', '{"heard": []}'])
def test_a_broken_memory_is_ignored_and_mended(folder, tmp_path, heard, content):
    for name in ("silence.wav", "broken.mp3", "video.m4a", "ann/one.wav"):
        (folder / name).unlink()
    mine = reader(folder, cache=str(tmp_path / "cache"))
    first = list(mine.utterances())
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(content)
    assert list(mine.utterances()) == first and heard == ["two.flac"] * 2
    assert json.loads(file.read_text())["recording"].endswith("two.flac")


def test_a_fingerprint_hears_nothing_and_changes_with_what_changes_the_pieces(folder, heard, monkeypatch):
    mine = reader(folder)
    before = mine.fingerprint()
    assert replace(mine, workers=4, cache="x").fingerprint() == before
    others = [replace(mine, **one).fingerprint() for one in ({"min_seconds": 1.0}, {"max_seconds": 9.0})]
    monkeypatch.setattr(cuts, "VERSION", 99)
    others.append(mine.fingerprint())
    monkeypatch.undo()
    os.utime(folder / "ann" / "one.wav", (1, 1))
    others.append(mine.fingerprint())
    assert len({before, *others}) == 5 and not heard


@pytest.mark.parametrize(("least", "most"), [(2.0, 3.9), (0.0, 5.0), (-1.0, 5.0)])
def test_lengths_that_cannot_be_kept_are_refused(folder, least, most):
    with pytest.raises(InputError, match=r"data\.max_seconds"):
        reader(folder, min_seconds=least, max_seconds=most)


def test_folders_without_recordings_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no recording.*data\.path"):
        reader(tmp_path).fingerprint()
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.m4a.*ffmpeg"):
        list(reader(tmp_path).utterances())


def test_a_recording_cut_short_is_one_skip(talk, tmp_path):
    write_audio(tmp_path / "a.wav", talk)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:200_000])
    assert [one.cause for one in reader(tmp_path).utterances()] == ["truncated"]


def test_a_process_that_dies_or_fails_is_heard_of(folder, monkeypatch):
    monkeypatch.setattr(cuts, "hear", lambda path: os._exit(9))
    with pytest.raises(InputError, match=r"died.*workers=0"):
        list(reader(folder, workers=1).utterances())

    def fail(path):
        raise InputError("the model is not installed")

    monkeypatch.setattr(cuts, "hear", fail)
    with pytest.raises(InputError, match="not installed"):
        list(reader(folder, workers=1).utterances())


def bytes_read() -> int:
    """By read calls of this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="only Linux counts the bytes of a process")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_piece_is_decoded_without_the_rest_of_the_file(talk, tmp_path, suffix):
    path = str(tmp_path / f"long{suffix}")
    write_audio(path, np.tile(talk, 15))
    size, seconds = os.path.getsize(path), probe_audio(path).duration_seconds
    own = bytes_read() - bytes_read()
    for offset in (0.0, 61.3, seconds / 2, seconds - 6):
        before = bytes_read()
        read_audio(path, offset, 5.0)
        read = bytes_read() - before + own
        # A place in FLAC is found by trying: ten looks of 32 KB, however long the recording is.
        looks = 10 * (1 << 15) if suffix == ".flac" else 100
        assert 0.1 * size * 5 / seconds < read < 1.2 * size * 5 / seconds + looks and read < size / 8


LISTENING = """
import os, time
from glmasr.data import cuts
real = cuts.hear
def hear(path):
    found = real(path)
    os.write(1, (path + "\\n").encode())  # in one piece: two processes write
    time.sleep(0 if path.endswith("0.wav") else 600)
    return found
cuts.hear = hear
for one in cuts.LongRecordings({path!r}, workers=2, cache={cache!r}).utterances():
    pass
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_stopped_reader_leaves_no_process_and_goes_on(talk, tmp_path, heard, how):
    for number in range(3):
        write_audio(tmp_path / f"{number}.wav", talk[: 7 * RATE_HZ])
    cache = str(tmp_path / "cache")
    program = [sys.executable, "-c", LISTENING.format(path=str(tmp_path), cache=cache)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell's background job, and all that it starts, would not hear Ctrl-C.
    streams["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(program, cwd=REPOSITORY, start_new_session=True, **streams) as process:
        try:
            for _ in range(3):
                assert re.search(r"\d\.wav", process.stdout.readline())
            process.send_signal(how)
            end = time.monotonic() + 60
            process.communicate(timeout=60)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    assert len(os.listdir(cache)) == 1
    pieces = list(LongRecordings(str(tmp_path), workers=0, cache=cache).utterances())
    assert heard == ["1.wav", "2.wav"] and {os.path.basename(one.audio) for one in pieces} == {
        "0.wav",
        "1.wav",
        "2.wav",
    }
