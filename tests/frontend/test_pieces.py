"""A recording in, pieces out: all its speech, none of its long silence, whatever the blocks it comes in."""

import json

import numpy as np
import pytest

from glmasr.frontend import pieces as room
from glmasr.frontend.audio import read_audio
from glmasr.frontend.pieces import Course, listen, pieces_of, take
from glmasr.speech import RATE_HZ


def course(seconds, *speech, quiet=()):
    """Speech, from and to such seconds, that is as loud as any but where it is quiet."""
    frames = np.arange(round(seconds * RATE_HZ / 512)) * 0.032
    inside = [np.float32(sum((a <= frames) & (frames < b) for a, b in one) + 0 * frames) for one in (speech, quiet)]
    return Course(round(seconds * RATE_HZ), inside[0], 1.0 - 0.9 * inside[1])


def in_seconds(found):
    return [(start / RATE_HZ, stop / RATE_HZ) for start, stop in found]


def test_short_pauses_stay_and_long_ones_go():
    assert in_seconds(pieces_of(course(10, (1.0, 3.0), (4.5, 9.0)), 30)) == [(0.0, 10.0)]
    (a, b), (c, d) = in_seconds(pieces_of(course(30, (4.0, 8.0), (9.0, 10.0), (20.0, 24.0)), 30))
    expected = [
        4 - room.PADDING_SECONDS,
        10 + room.PADDING_SECONDS,
        20 - room.PADDING_SECONDS,
        24 + room.PADDING_SECONDS,
    ]
    assert [a, b, c, d] == pytest.approx(expected, abs=0.033)


def test_a_recording_without_speech_has_no_pieces():
    assert pieces_of(course(10), 30) == [] and pieces_of(listen([]), 30) == []


def test_what_is_short_must_be_probable():
    blip = course(3, (1.0, 1.2))
    assert pieces_of(blip, 30) == [(0, 3 * RATE_HZ)]
    assert pieces_of(Course(blip.samples, 0.8 * blip.speech, blip.power), 30) == []
    assert pieces_of(course(3, (1.0, 1.05)), 30) == []


def test_a_long_piece_ends_in_the_longest_pause_of_its_second_half():
    one = course(50, (0.0, 17.0), (17.2, 22.0), (23.0, 27.0), (27.2, 50.0))
    found = in_seconds(pieces_of(one, 30))
    assert found[0][1] == pytest.approx(22.5, abs=0.04) and found[0][1] == found[1][0] and found[-1][1] == 50
    assert all(stop - start <= 30 for start, stop in found)


def test_where_nobody_pauses_it_ends_where_it_is_quietest():
    found = in_seconds(pieces_of(course(70, (0.0, 70.0), quiet=[(21.0, 21.2), (44.0, 44.2)]), 30))
    assert [stop for _, stop in found] == pytest.approx([21.1, 44.1, 70.0], abs=0.06)
    assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]


@pytest.mark.parametrize("vad", [True, False])
def test_blocks_of_any_size_are_heard_and_taken_alike(spoken, vad):
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(4 * RATE_HZ).astype(np.float32)
    whole = np.concatenate([hiss, spoken[0].numpy(), hiss, spoken[1].numpy(), spoken[2].numpy()])
    at_once = listen([whole], vad)
    found = pieces_of(at_once, 3.0)
    assert len(found) > 2 and (sum(b - a for a, b in found) == len(whole)) != vad
    for size in (160, 7001, 50_000):
        blocks = [whole[i : i + size] for i in range(0, len(whole), size)]
        heard = listen(blocks, vad)
        assert heard.samples == len(whole) and np.allclose(heard.speech, at_once.speech, atol=1e-4)
        assert np.allclose(heard.power, at_once.power)
        taken = list(take(blocks, found))
        assert all(np.array_equal(piece, whole[a:b]) for piece, (a, b) in zip(taken, found, strict=True))


def test_real_short_words_are_heard_and_noise_is_not(shared_corpora):
    """The figures that the thresholds were chosen by, on a sample."""
    shares = {}
    for corpus in ("fsdd", "mandarin_words", "noise_esc10"):
        rows = [json.loads(line) for line in (shared_corpora / corpus / "manifest.jsonl").open()][::40][:40]
        courses = [listen([read_audio(str(shared_corpora / corpus / row["audio_filepath"]))]) for row in rows]
        shares[corpus] = sum(not pieces_of(one, 30) for one in courses) / len(courses)
    assert shares["fsdd"] == 0 and shares["mandarin_words"] == 0 and shares["noise_esc10"] > 0.7
