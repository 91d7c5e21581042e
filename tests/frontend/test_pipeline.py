"""What every model hears: no level, no channel, no padding."""

import pytest
import torch
from torch.nn.functional import conv1d

from glmasr.frontend.logmel import POWER_FLOOR, LogMel
from glmasr.frontend.pipeline import PRIOR_DEVIATION, PRIOR_FRAMES, Ear


def test_every_bin_has_zero_mean_and_unit_variance_over_real_frames(spoken_batch):
    features, lengths = Ear()(*spoken_batch)
    for row, length in zip(features, lengths, strict=True):
        real = row[:length]
        torch.testing.assert_close(real.mean(0), torch.zeros(80), rtol=0, atol=1e-4)
        torch.testing.assert_close(real.std(0, correction=0), torch.ones(80), rtol=0, atol=1e-4)
        assert not row[length:].any()


def test_alone_is_as_in_a_batch(spoken, spoken_batch):
    features, lengths = Ear()(*spoken_batch)
    for row, length, waveform in zip(features, lengths, spoken, strict=True):
        alone, _ = Ear()(waveform[None], torch.tensor([len(waveform)]))
        torch.testing.assert_close(row[:length], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 6.0, 20.0])
def test_a_level_change_changes_nothing_above_the_floor(spoken_batch, gain_db):
    waveform, lengths = spoken_batch
    power, counts = LogMel()(waveform, lengths)
    (features, _), (changed, _) = Ear()(waveform, lengths), Ear()(waveform * 10 ** (gain_db / 20), lengths)
    for row in range(len(lengths)):
        real = slice(0, counts[row])
        audible = power[row, real].exp().amin(0) * min(1.0, 10 ** (gain_db / 10)) > POWER_FLOOR
        assert audible.float().mean() > 0.5
        torch.testing.assert_close(changed[row, real][:, audible], features[row, real][:, audible], rtol=0, atol=1e-3)
    # The bins in which 20 dB less sinks a pause into the floor change too, but little.
    assert (changed - features).abs().mean() < 1e-3 and (changed - features).abs().max() < 0.5


def test_a_channel_changes_little(spoken_batch):
    waveform, lengths = spoken_batch
    channel = torch.tensor([[[0.1, -0.3, 1.0]]])  # a short, strong tilt: up to 8 dB between low and high
    tilted = conv1d(waveform[:, None], channel, padding=1)[:, 0]
    (features, _), (changed, _) = Ear()(waveform, lengths), Ear()(tilted, lengths)
    (raw, _), (raw_changed, _) = LogMel()(waveform, lengths), LogMel()(tilted, lengths)
    assert (changed - features).abs().mean() < 0.1 * (raw_changed - raw).abs().mean()


def test_silence_stays_silent_and_steady_noise_is_not_blown_up():
    silence, _ = Ear()(torch.zeros(1, 8000), torch.tensor([8000]))
    assert not silence.any()
    steady = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16_000)[None]
    features, _ = Ear()(steady, torch.tensor([8000]))
    assert (
        features.isfinite().all()
        and features[..., LogMel()(steady, torch.tensor([8000]))[0].mean((0, 1)) > 0].abs().max() < 0.1
    )


def test_in_chunks_a_frame_is_normalized_by_what_was_heard(spoken_batch):
    waveform, lengths = spoken_batch
    features, counts = Ear()(waveform, lengths, chunk_features=64)
    raw, _ = LogMel()(waveform, lengths)
    for row, one, count in zip(features, raw.double(), counts.tolist(), strict=True):
        assert not row[count:].any()
        for begin in range(0, count, 64):
            heard, end = one[: min(begin + 64, count)], min(begin + 64, count)
            scatter = (heard - heard.mean(0)).square().sum(0) + PRIOR_FRAMES * PRIOR_DEVIATION**2
            deviation = (scatter / (len(heard) + PRIOR_FRAMES)).sqrt()
            expected = ((one[begin:end] - heard.mean(0)) / deviation).float()
            torch.testing.assert_close(row[begin:end], expected, rtol=0, atol=1e-4)


def test_in_chunks_what_comes_later_changes_nothing(spoken):
    waveform = spoken[0]
    half = 160 * 64 + 240  # the samples of 64 windows
    whole, _ = Ear()(waveform[None], torch.tensor([len(waveform)]), chunk_features=32)
    begun, count = Ear()(waveform[None, :half], torch.tensor([half]), chunk_features=32)
    assert count.item() == 64 and len(waveform) > 2 * half
    torch.testing.assert_close(begun, whole[:, :64], rtol=0, atol=1e-6)
