"""Forward + backward of the stem: depthwise-separable against a plain second convolution, interleaved, as a ratio.

python benchmarks/stem.py            # 16 utterances of 5 s, 64 channels, width 144
"""

import statistics
import time

import torch
from torch import nn

from glmasr.model.encoder import Encoder
from glmasr.model.subsampling import Subsampling

REPEATS = 9
BINS, WIDTH, CHANNELS, UTTERANCES, FRAMES = 80, 144, 64, 16, 500


class PlainSubsampling(Subsampling):
    """The same with one full convolution where ours has a depthwise and a pointwise one."""

    def __init__(self, bins: int, width: int, channels: int):
        super().__init__(bins, width, channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.pointwise = nn.Identity()


def seconds(stem: nn.Module, features: torch.Tensor, lengths: torch.Tensor) -> float:
    """One forward and backward pass."""
    started = time.perf_counter()
    frames = stem(features, lengths)[0]
    frames.square().mean().backward()
    return time.perf_counter() - started


def main() -> None:
    features, lengths = torch.randn(UTTERANCES, FRAMES, BINS), torch.full((UTTERANCES,), FRAMES)
    stems = {"separable": Subsampling(BINS, WIDTH, CHANNELS), "plain": PlainSubsampling(BINS, WIDTH, CHANNELS)}
    stems["tiny encoder, whole"] = Encoder(WIDTH, 6, 4)
    times: dict[str, list[float]] = {name: [] for name in stems}
    for _ in range(REPEATS):
        for name, stem in stems.items():
            times[name].append(seconds(stem, features, lengths))
    own = statistics.median(times["separable"])
    print(f"{torch.get_num_threads()} threads, {UTTERANCES * FRAMES / 100:.0f} s of audio, median of {REPEATS}")
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:20} {median * 1000:7.0f} ms   {median / own:5.2f} x separable")


if __name__ == "__main__":
    main()
