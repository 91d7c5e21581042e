"""A stream gives what the whole recording gives under the same chunks, however its samples come in."""

import pytest
import torch

from glmasr.frontend.pipeline import Ear
from glmasr.model.encoder import Encoder
from glmasr.model.streaming import State, begin, step, stream
from glmasr.model.subsampling import STRIDE


def tiny(**options) -> Encoder:
    torch.manual_seed(0)
    return Encoder(width=32, blocks=2, heads=2, stem_channels=4, kernel=7, dropout=0.0, **options).eval()


def whole(encoder: Encoder, waveform: torch.Tensor, chunk: int, left: int | None) -> torch.Tensor:
    features, lengths = Ear()(waveform[None], torch.tensor([len(waveform)]), chunk * STRIDE)
    with torch.inference_mode():
        return encoder(features, lengths, chunk_frames=chunk, left_chunks=left)[0]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("left", [None, 2, 0])
@pytest.mark.parametrize("chunk", [4, 8, 16, 32])
def test_streamed_is_whole(spoken, chunk, left, causal):
    encoder = tiny(causal=causal)
    for waveform, size in zip(spoken, (16_000, 1_000, 7_777, 100_000), strict=False):
        streamed = stream(encoder, Ear(), waveform.split(size), chunk, left)
        expected = whole(encoder, waveform, chunk, left)
        assert streamed.shape == expected.shape and streamed.shape[1] > 20
        torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "samples", [1, 399, 400, 560, 720, 880, 1040, 10_240, 10_479, 10_480, 10_639, 10_640, 10_879, 10_880, 11_040]
)
def test_every_end_is_the_wholes(spoken, samples):
    encoder, waveform = tiny(), spoken[0][8_000 : 8_000 + samples]
    torch.testing.assert_close(
        stream(encoder, Ear(), [waveform], 16), whole(encoder, waveform, 16, None), rtol=0, atol=1e-4
    )


def test_sample_by_sample_is_all_at_once(spoken):
    encoder, waveform = tiny(), spoken[0][:2_000]
    one, all_at_once = (stream(encoder, Ear(), waveform.split(size), 1) for size in (1, 2_000))
    torch.testing.assert_close(one, all_at_once, rtol=0, atol=1e-6)
    torch.testing.assert_close(one, whole(encoder, waveform, 1, None), rtol=0, atol=1e-4)


def test_a_chunk_comes_as_soon_as_its_samples_are_there(spoken):
    encoder, ear = tiny(), Ear()
    needed = 4 * 640 + 240
    context, state = step(encoder, ear, spoken[0][: needed - 1], begin(encoder, ear), 4)
    assert context.shape[1] == 0 and state.frames == 0
    context, state = step(encoder, ear, spoken[0][needed - 1 : needed], state, 4)
    assert context.shape[1] == 4 == state.frames


def held_bytes(state: State) -> int:
    """What memory the state keeps from being freed, whatever part of it is looked at."""
    blocks = [part for block in state.blocks for part in vars(block).values()]
    tensors = [part for part in (*vars(state).values(), *blocks) if isinstance(part, torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_limited_memory_is_bounded_and_streams_do_not_mix(spoken):
    encoder, ear = tiny(), Ear()
    waveform = torch.cat([*spoken, *spoken])
    states, sizes, outputs = [begin(encoder, ear) for _ in range(2)], [], ([], [])
    for block, other in zip(waveform.split(8_000), waveform.flip(0).split(8_000), strict=True):
        for i, samples in enumerate((block, other)):
            context, states[i] = step(encoder, ear, samples, states[i], 4, 2)
            outputs[i].append(context)
        sizes.append(states[0].size_bytes - 4 * len(states[0].samples))
        assert len(states[0].samples) < 4 * 640 + 240
    assert len(sizes) > 8 and len(set(sizes[3:])) == 1
    assert held_bytes(states[0]) == states[0].size_bytes
    alone, _ = step(encoder, ear, waveform, begin(encoder, ear), 4, 2)
    torch.testing.assert_close(torch.cat(outputs[0], 1), alone, rtol=0, atol=1e-4)
