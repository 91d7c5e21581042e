"""Voice activity: the probabilities and regions of Silero's own code, whole or in blocks of any size."""

import sys

import numpy as np
import pytest
import torch

from glmasr.frontend import vad
from glmasr.frontend.audio import read_audio
from glmasr.frontend.vad import FRAME_SAMPLES, FRAME_SECONDS, speech_probabilities, speech_regions
from glmasr.speech import RATE_HZ, InputError


@pytest.fixture(scope="module")
def waveform(spoken) -> np.ndarray:
    """Four real clips with silence between, one of them faint; not a whole number of frames."""
    parts = [clip.numpy() * gain for clip, gain in zip(spoken, (1.0, 0.05, 1.0, 0.5), strict=True)]
    silence = np.zeros(9_000, np.float32)
    joined = np.concatenate([part for clip in parts for part in (silence, clip)])
    return joined[: len(joined) // FRAME_SAMPLES * FRAME_SAMPLES - 200]


@pytest.fixture(scope="module")
def probabilities(waveform) -> np.ndarray:
    return speech_probabilities(waveform, last=True)[0]


@pytest.fixture(scope="module")
def silero():
    return pytest.importorskip("silero_vad").load_silero_vad(onnx=True)


def test_blocks_of_any_size_give_what_the_whole_gives(waveform, probabilities):
    rng = np.random.default_rng(0)
    for sizes in ([1, 511, 512, 513, 63, 0, 2_000], rng.integers(0, 3_000, 400)):
        state, heard = None, []
        for block in np.split(waveform, np.minimum(np.cumsum(sizes), len(waveform))):
            found, state = speech_probabilities(block, state)
            heard.append(found)
        assert len(state.samples) == 64 + len(waveform) % FRAME_SAMPLES
        heard.append(speech_probabilities(waveform[:0], state, last=True)[0])
        np.testing.assert_allclose(np.concatenate(heard), probabilities, atol=1e-6)


def test_a_state_is_not_changed_by_its_use(waveform):
    _, state = speech_probabilities(waveform[:20_000])
    first, second = (speech_probabilities(waveform[20_000:30_000], state)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_frame_is_heard_when_it_is_whole_and_the_last_one_on_request(waveform):
    assert [len(speech_probabilities(waveform[:count])[0]) for count in (0, 511, 512, 1023)] == [0, 0, 1, 1]
    counts = [len(speech_probabilities(waveform[:count], last=True)[0]) for count in (0, 1, 512, 513)]
    assert counts == [0, 1, 1, 2]


def test_speech_is_told_from_silence_and_noise(waveform, probabilities):
    noise = np.random.default_rng(0).normal(0, 0.05, RATE_HZ).astype(np.float32)
    assert speech_probabilities(np.zeros(RATE_HZ, np.float32))[0].max() < 0.2
    assert np.median(speech_probabilities(noise)[0]) < 0.3
    assert probabilities.max() > 0.95 and probabilities[:15].max() < 0.3


def test_probabilities_are_silero_s_own(waveform, probabilities, silero):
    with torch.no_grad():
        theirs = silero.audio_forward(torch.from_numpy(waveform)[None], RATE_HZ)[0].numpy()
    np.testing.assert_allclose(probabilities, theirs, atol=1e-5)


@pytest.mark.parametrize("source", ["spoken", "librispeech_mini", "aishell_sample"])
def test_regions_are_silero_s_own(source, waveform, silero, request):
    from silero_vad import get_speech_timestamps

    if source != "spoken":
        files = sorted((request.getfixturevalue("shared_corpora") / source / "audio").iterdir())[:2]
        waveform = np.concatenate([read_audio(str(file)) for file in files])
    heard, duration = speech_probabilities(waveform, last=True)[0], len(waveform) / RATE_HZ
    for silence, speech, pad in ((0.1, 0.25, 0.03), (0.4, 0.5, 0.1), (0.032, 0.0, 0.2)):
        ours = speech_regions(heard, duration, 0.5, 0.35, silence, speech, pad)
        times = {"min_silence_duration_ms": silence * 1000, "speech_pad_ms": pad * 1000}
        theirs = get_speech_timestamps(
            torch.from_numpy(waveform), silero, min_speech_duration_ms=speech * 1000, **times
        )
        assert len(ours) == len(theirs) > 0
        expected = [(one["start"] / RATE_HZ, one["end"] / RATE_HZ) for one in theirs]
        np.testing.assert_allclose(ours, expected, atol=1.01 * FRAME_SECONDS)


def frames(*stretches: tuple[float, int]) -> np.ndarray:
    return np.repeat(*map(np.array, zip(*stretches, strict=True))).astype(np.float32)


def seconds(*regions: tuple[float, float]) -> list:
    return [pytest.approx((start * FRAME_SECONDS, stop * FRAME_SECONDS)) for start, stop in regions]


def test_speech_begins_above_one_threshold_and_ends_below_another():
    heard = frames((0.4, 10), (0.6, 10), (0.4, 10), (0.2, 10), (0.4, 10), (0.9, 10))
    assert speech_regions(heard, padding_seconds=0) == seconds((10, 30), (50, 60))
    assert speech_regions(heard, padding_seconds=0, onset=0.7) == seconds((50, 60))
    assert speech_regions(heard, padding_seconds=0, offset=0.45) == seconds((10, 20), (50, 60))


def test_short_silences_and_short_speech_do_not_count():
    heard = frames((0.9, 20), (0.1, 3), (0.9, 20), (0.1, 20), (0.9, 7), (0.1, 20))
    assert speech_regions(heard, padding_seconds=0) == seconds((0, 43))
    assert speech_regions(heard, padding_seconds=0, min_speech_seconds=0.2) == seconds((0, 43), (63, 70))
    assert speech_regions(heard, padding_seconds=0, min_silence_seconds=0.05) == seconds((0, 20), (23, 43))


def test_padding_stops_at_the_ends_and_in_the_middle_of_a_pause():
    heard = frames((0.1, 2), (0.9, 20), (0.1, 6), (0.9, 20), (0.1, 100), (0.9, 20))
    five = {"padding_seconds": 5 * FRAME_SECONDS}
    assert speech_regions(heard, **five) == seconds((0, 25), (25, 53), (143, 168))
    short = 167.5 * FRAME_SECONDS
    assert speech_regions(heard, short, **five)[-1] == pytest.approx((143 * FRAME_SECONDS, short))


def test_nothing_heard_is_no_region():
    assert speech_regions(np.zeros(0, np.float32)) == speech_regions(np.zeros(99, np.float32)) == []


def test_silero_s_package_is_not_imported(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "silero_vad"]:
        monkeypatch.delitem(sys.modules, name)
    vad._model.cache_clear()
    assert len(speech_probabilities(np.zeros(FRAME_SAMPLES))[0]) == 1
    assert "silero_vad" not in sys.modules


def test_a_model_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    vad._model.cache_clear()
    with pytest.raises(InputError, match="pip install silero-vad"):
        speech_probabilities(np.zeros(FRAME_SAMPLES))
