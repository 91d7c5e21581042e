"""Noise alone in the place of an utterance: as long, as loud, as often as asked, and of nothing that was said."""

import numpy as np
import pytest

from glmasr.augment.wordless import Wordless
from glmasr.frontend.audio import write_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError


@pytest.fixture
def speech() -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal(8000)).astype(np.float32)


def test_generated_noise_is_as_long_and_loud_and_independent_of_what_was_said(speech):
    noise = Wordless(1.0)(speech, np.random.default_rng(0))
    assert noise is not None and noise.dtype == np.float32 and noise.shape == speech.shape
    assert rms(noise) == pytest.approx(rms(speech), rel=1e-4)
    assert abs(np.corrcoef(noise, speech)[0, 1]) < 0.1
    louder = Wordless(1.0)(speech[::-1] * 2, np.random.default_rng(0))
    np.testing.assert_allclose(louder, 2 * noise, rtol=1e-4)


def test_it_happens_as_often_as_asked(speech):
    rng = np.random.default_rng(0)
    share = np.mean([Wordless(0.25)(speech[:400], rng) is not None for _ in range(2000)])
    assert 0.22 < share < 0.28
    assert all(Wordless(0.0)(speech, rng) is None for _ in range(100))


def test_recorded_noise_is_drawn_from_a_folder_and_padded(speech, tmp_path):
    tone = (0.2 * np.sin(np.arange(3200) / 3)).astype(np.float32)
    write_audio(tmp_path / "tone.wav", tone)
    noise = Wordless(1.0, str(tmp_path))(speech, np.random.default_rng(0))
    assert np.corrcoef(noise[:3200], tone)[0, 1] > 0.99 and not noise[3200:].any()
    assert rms(noise) == pytest.approx(rms(speech), rel=1e-3)
    assert len(Wordless(1.0, str(tmp_path))(speech[: RATE_HZ // 10], np.random.default_rng(0))) == 1600


def test_silent_recordings_silent_speech_and_no_recordings(speech, tmp_path):
    write_audio(tmp_path / "nothing.wav", np.zeros(3200, np.float32))
    assert rms(Wordless(1.0, str(tmp_path))(speech, np.random.default_rng(0))) == pytest.approx(rms(speech), rel=1e-3)
    assert not Wordless(1.0)(np.zeros(1600, np.float32), np.random.default_rng(0)).any()
    with pytest.raises(InputError, match="no noise at"):
        Wordless(1.0, str(tmp_path / "missing"))(speech, np.random.default_rng(0))


def test_without_it_what_else_is_drawn_stays_as_it_was(speech):
    ours, other = np.random.default_rng(3), np.random.default_rng(3)
    assert Wordless(0.0)(speech, ours) is None and ours.random() == other.random()
