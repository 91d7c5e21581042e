"""Log-probabilities and tokens in, frames and times of words out: as by hand, and as every path by brute force says."""

from itertools import groupby, product

import numpy as np
import pytest
import torch
from torchaudio.functional import forced_align

from glmasr.decoding.align import EARLY_SECONDS, LATE_SECONDS, align, frames_needed, likeliest_path, word_times
from glmasr.decoding.ctc import greedy
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ


def spells(path):
    return tuple(token for token, _ in groupby(path) if token)


@pytest.mark.parametrize("tokens", [(1,), (1, 2), (2, 2), (1, 2, 1)])
def test_the_path_is_the_likeliest_of_all(tokens):
    log_probs = torch.randn(5, 3).log_softmax(-1)
    paths = [path for path in product(range(3), repeat=5) if spells(path) == tokens]
    best = max(paths, key=lambda path: sum(log_probs[t, token] for t, token in enumerate(path)))
    runs = [(token, [t for t, _ in run]) for token, run in groupby(enumerate(best), key=lambda one: one[1]) if token]
    found = align(log_probs, tokens)
    assert found.starts == tuple(run[0] for _, run in runs) and found.ends == tuple(run[-1] + 1 for _, run in runs)
    sure = [sum(log_probs[t, token].exp().item() for t in run) / len(run) for token, run in runs]
    assert found.confidences == pytest.approx(sure, abs=1e-5)


@pytest.mark.parametrize("frames, size, spread", [(60, 8, 1.0), (300, 30, 4.0), (41, 4, 0.2), (400, 30, 4.0)])
def test_the_path_is_torchaudios(frames, size, spread):
    log_probs = (spread * torch.randn(frames, size)).log_softmax(-1)
    for count in (1, 7, 20, *([64, 150] if frames > 300 else [])):  # 64 and more have states beyond a byte
        tokens = torch.randint(1, size, (1, count))
        expected, _ = forced_align(log_probs[None], tokens, blank=0)
        assert likeliest_path(log_probs.numpy(), tokens[0].tolist()).tolist() == expected[0].tolist()


def test_what_greedy_found_is_aligned_as_any_text_is():
    log_probs = (3 * torch.randn(40, 6)).log_softmax(-1).numpy()
    assert likeliest_path(log_probs, greedy(log_probs).tokens).tolist() == log_probs.argmax(-1).tolist()


def test_what_greedy_found_stays_where_it_was():
    log_probs = (3 * torch.randn(40, 6)).log_softmax(-1)
    best = greedy(log_probs)
    found = align(log_probs, best.tokens)
    assert (found.starts, found.ends) == (best.starts, best.ends) and len(best.tokens) > 10


def test_too_few_frames_are_refused_and_no_tokens_are_none():
    log_probs = torch.randn(3, 4).log_softmax(-1)
    assert frames_needed((1, 1, 2)) == 4 and frames_needed(()) == 0
    with pytest.raises(ValueError, match="3 frames cannot hold 3 tokens"):
        align(log_probs, (1, 1, 2))
    assert align(log_probs, ()).starts == ()


def test_without_a_waveform_words_are_as_late_as_usual():
    (a, b), (c, d), (e, f) = word_times([(0.5, 0.6), (0.7, 0.8), (3.0, 3.2)], 3.3)
    assert a == pytest.approx(0.5 - EARLY_SECONDS) and b == pytest.approx(0.665) == pytest.approx(c)
    assert d == pytest.approx(0.8 + LATE_SECONDS) and e == pytest.approx(3.0 - EARLY_SECONDS) and f == 3.3
    assert word_times([], 1.0) == []


def test_real_words_end_where_their_pause_begins(rhyme_root):
    """Two utterances with 0.6 s between them, of which CTC would have named the middles."""
    clip = read_audio(str(rhyme_root / "rhyme_test" / "audio" / "M4_b1_w1.flac"))
    loud = np.flatnonzero(np.abs(clip) > 0.05 * np.abs(clip).max())
    word, gap = clip[loud[0] : loud[-1]], 0.6
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(round(gap * RATE_HZ)).astype(np.float32)
    seconds = len(word) / RATE_HZ
    whole = np.concatenate([hiss, word, hiss, word, hiss])
    said = [(gap, gap + seconds), (2 * gap + seconds, 2 * gap + 2 * seconds)]
    named = [(start + 0.2, end - 0.2) for start, end in said]
    found = word_times(named, len(whole) / RATE_HZ, whole)
    assert np.abs(np.array(found) - said).max() < 0.04
    flat = [time for times in found for time in times]
    assert flat == sorted(flat) and all(type(time) is float for time in flat)


@pytest.mark.parametrize("samples", [0, 50, 200, 4000])
def test_any_waveform_gives_times_in_order(samples):
    seconds = samples / RATE_HZ
    noise = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    found = word_times([(0.0, 0.04), (0.04, 0.08), (0.12, 0.24)], seconds, noise)
    flat = [time for times in found for time in times]
    assert flat == sorted(flat) and flat[0] >= 0 and flat[-1] <= seconds
