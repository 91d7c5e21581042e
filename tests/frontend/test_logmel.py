"""Log-mel features are torchaudio's, and the same in any company."""

import pytest
import torch
from torch.nn.functional import pad
from torchaudio.transforms import MelSpectrogram

from glmasr.frontend.logmel import FFT_SAMPLES, HOP_SAMPLES, POWER_FLOOR, WINDOW_SAMPLES, LogMel, feature_lengths
from glmasr.speech import RATE_HZ


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
def test_it_is_torchaudio_on_real_speech(spoken, dtype, tolerance):
    reference = MelSpectrogram(
        RATE_HZ, FFT_SAMPLES, 400, 160, n_mels=80, center=False, norm="slaney", mel_scale="slaney", power=2.0
    ).to(dtype)
    for waveform in spoken:
        waveform = waveform.to(dtype)[None]
        features, lengths = LogMel().to(dtype)(waveform, torch.tensor([waveform.shape[1]]))
        # torchaudio centers its 400-sample window in the 512 samples of the FFT: 56 stay unseen on each side.
        expected = reference(pad(waveform, (56, 56))).transpose(1, 2).clamp(min=POWER_FLOOR).log()
        assert lengths.tolist() == [expected.shape[1]]
        torch.testing.assert_close(features, expected, rtol=0, atol=tolerance)


def test_alone_is_as_in_a_batch_whatever_lies_behind_the_end(spoken, spoken_batch):
    waveform, lengths = spoken_batch
    behind = torch.arange(waveform.shape[1]) >= lengths[:, None]
    features, counts = LogMel()(waveform + behind * torch.randn_like(waveform), lengths)
    for row, count, alone in zip(features, counts, spoken, strict=True):
        expected, _ = LogMel()(alone[None], torch.tensor([len(alone)]))
        assert count == expected.shape[1]
        torch.testing.assert_close(row[:count], expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 399, 400, 559, 560, 561, 16_000])
def test_only_whole_windows_count_and_at_least_one(samples):
    features, lengths = LogMel()(torch.randn(1, samples), torch.tensor([samples]))
    whole = sum(start + WINDOW_SAMPLES <= samples for start in range(0, samples, HOP_SAMPLES))
    assert features.shape == (1, max(1, whole), 80) and lengths.tolist() == [max(1, whole)]
    assert feature_lengths(torch.tensor([samples])).tolist() == [max(1, whole)]
    assert features.isfinite().all()


def test_a_short_waveform_is_the_same_alone_and_in_a_batch():
    short = torch.randn(1, 250)
    alone, _ = LogMel()(short, torch.tensor([250]))
    batch, lengths = LogMel()(torch.cat((pad(short, (0, 750)), torch.randn(1, 1000))), torch.tensor([250, 1000]))
    assert lengths.tolist() == [1, 4]
    torch.testing.assert_close(batch[0, :1], alone[0], rtol=0, atol=1e-5)


def test_silence_is_the_floor_and_a_tone_lands_in_its_bin():
    silence, _ = LogMel()(torch.zeros(1, 1600), torch.tensor([1600]))
    assert (silence == torch.tensor(POWER_FLOOR).log()).all()
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(1600) / RATE_HZ)[None]
    loudest = LogMel()(tone, torch.tensor([1600]))[0].mean(1).argmax()
    center = LogMel().banks[:, loudest].argmax() * RATE_HZ / FFT_SAMPLES
    assert center == pytest.approx(1000, abs=RATE_HZ / FFT_SAMPLES)
