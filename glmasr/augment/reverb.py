"""A waveform in, the same speech as a room carries it to a microphone some way off out."""

import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import scipy.fft

from glmasr.augment.noise import list_recordings
from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError

SOUND_METERS_PER_SECOND = 343.0
SMALLEST_METERS, LARGEST_METERS = (3.0, 2.5, 2.4), (10.0, 8.0, 4.0)
WALL_METERS = 0.4
"""Nobody is nearer to a wall, floor or ceiling."""

MIRRORED_ORDER = 10
"""Reflections up to this one are exact mirror images, those behind it are traced rays."""

SCATTERING = 0.2
"""Furniture: of what a wall reflects this share goes anywhere. Without it decays last 1.2 times as long as asked."""

DIRECT_DROP_DB = 10.0
DIRECT_SAMPLES = RATE_HZ // 1000
DECAY_DB = 60.0
VERSION = 1
"""Raised when the same settings give other rooms."""


@dataclass(frozen=True)
class Room:
    """A shoebox (meters) with a talker and a microphone in it; the reverberation time is of a fall by 60 dB."""

    size: tuple[float, float, float]
    rt60_seconds: float
    talker: tuple[float, float, float]
    microphone: tuple[float, float, float]

    @property
    def absorption(self) -> float:
        """The share of the energy that every wall must take for `rt60_seconds`, after Eyring (1930)."""
        x, y, z = self.size
        sabine = 24 * np.log(10) * x * y * z / (SOUND_METERS_PER_SECOND * 2 * (x * y + y * z + z * x))
        return float(1 - np.exp(-sabine / self.rt60_seconds))


@dataclass(frozen=True)
class Rooms:
    """`count` simulated rooms, reverberation time and distance drawn evenly, kept as FLAC under `folder`.

    The same settings are the same rooms everywhere, and more of them begin with the same ones. Rooms are 3 to 10 m
    long, drawn until the distance fits in.
    """

    count: int
    rt60_low_seconds: float
    rt60_high_seconds: float
    distance_low_meters: float
    distance_high_meters: float
    seed: int
    folder: str

    def recordings(self) -> list[str]:
        """The files of the bank, which is simulated first where it is not there (0.2 s a room, about)."""
        settings = repr((VERSION, replace(self, folder="")))
        home = Path(self.folder) / hashlib.sha256(settings.encode()).hexdigest()[:10]
        if not home.is_dir():
            self._publish(home)
        return sorted(str(file) for file in home.glob("*.flac"))

    def draw(self, number: int) -> Room:
        """The room with this number; InputError where no room holds the distances asked for."""
        rng = np.random.default_rng((self.seed, number))
        rt60 = rng.uniform(self.rt60_low_seconds, self.rt60_high_seconds)
        distance = rng.uniform(self.distance_low_meters, self.distance_high_meters)
        for _ in range(1000):
            size = rng.uniform(SMALLEST_METERS, LARGEST_METERS)
            microphone = rng.uniform(WALL_METERS, size - WALL_METERS)
            direction = rng.standard_normal(3) * (1, 1, 0.2)  # people and microphones are at about the same height
            talker = microphone + direction * (distance / np.linalg.norm(direction))
            if (talker >= WALL_METERS).all() and (talker <= size - WALL_METERS).all():
                return Room(tuple(size), float(rt60), tuple(talker), tuple(microphone))
        message = f"rooms of {LARGEST_METERS} m at most hardly hold a distance of {distance:.1f} m"
        raise InputError(f"{message}; choose a smaller distance_high_meters")

    def _publish(self, home: Path) -> None:
        """Simulate into a folder that gets its name when all is in it, unless another process was first."""
        unfinished = home.with_name(f".{home.name}.{os.getpid()}.tmp")
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            for number in range(self.count):
                response = simulate(self.draw(number), seed=self.seed + number)
                write_audio(unfinished / f"{number:04d}.flac", response / np.abs(response).max() * 0.99)
            unfinished.rename(home)
        except OSError as error:
            if not home.is_dir():
                message = f"cannot keep simulated rooms in '{self.folder}' ({error.strerror})"
                raise InputError(f"{message}; name another folder for them") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True)
class Response:
    """An impulse response of `samples` with its direct sound at `direct_sample`, ready to convolve blocks of `size`."""

    spectrum: np.ndarray
    size: int
    samples: int
    direct_sample: int


@dataclass(frozen=True)
class Reverberation(Sometimes):
    """With `probability`, a room: a recorded one if `path` is given (as `NoiseMixing` takes it), else a simulated one.

    The direct sound stays where it was, and so do level and length; what rings on behind the end is lost. In `path`
    files with `noise` in their name are passed over, so that OpenSLR 28 can be named as a whole.
    """

    probability: float
    path: str | None
    rooms: Rooms

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if not self.acts(rng):
            return waveform
        response = read_response(self.recordings[rng.integers(len(self.recordings))])
        heard = convolve(waveform, response)[response.direct_sample :][: len(waveform)]
        level = rms(heard)
        return (heard * (rms(waveform) / level)).astype(np.float32) if level else waveform

    @cached_property
    def recordings(self) -> list[str]:
        """The impulse responses to draw from; InputError where there are none."""
        if not self.path:
            return self.rooms.recordings()
        found = [file for file in list_recordings(self.path, "rooms") if "noise" not in os.path.basename(file)]
        if not found:
            raise InputError(f"all of '{self.path}' is noise by its name; name a folder of room impulse responses")
        return found


def simulate(room: Room, seed: int = 0) -> np.ndarray:
    """The room's impulse response (N) by mirror images and traced rays (pyroomacoustics), all directions alike."""
    import pyroomacoustics  # a second to import, which only the first to need rooms should pay

    pyroomacoustics.constants.set("num_threads", 1)  # several would sum in another order
    pyroomacoustics.random.seed(seed)
    walls = pyroomacoustics.Material(room.absorption, SCATTERING)
    box = pyroomacoustics.ShoeBox(
        room.size, fs=RATE_HZ, materials=walls, max_order=MIRRORED_ORDER, ray_tracing=True, air_absorption=True
    )
    box.add_source(room.talker)
    box.add_microphone(room.microphone)
    box.compute_rir()
    assert box.rir is not None
    return trim(np.asarray(box.rir[0][0], dtype=np.float32))


def trim(response: np.ndarray) -> np.ndarray:
    """The response (N) up to where all that follows is `DECAY_DB` below the whole."""
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    return response[: max(1, int(np.sum(left > left[0] * 10 ** (-DECAY_DB / 10))))]


def find_direct(response: np.ndarray) -> int:
    """The sample of the direct sound: the first peak that comes within 10 dB of the highest, which may be an echo."""
    height = np.abs(response)
    first = int(np.argmax(height >= height.max() * 10 ** (-DIRECT_DROP_DB / 20)))
    return first + int(np.argmax(height[first : first + DIRECT_SAMPLES]))


@lru_cache(maxsize=128)
def read_response(path: str) -> Response:
    """An impulse response from a file, the latest ones kept in memory, as a bank of simulated rooms is."""
    return prepare_response(trim(read_audio(path)))


def prepare_response(response: np.ndarray) -> Response:
    """The spectrum of a response (N) for blocks of at least twice its length."""
    size = 1 << max(12, (2 * len(response) - 1).bit_length())
    spectrum = np.asarray(scipy.fft.rfft(response.astype(np.float32), size))
    return Response(spectrum, size, len(response), find_direct(response))


def convolve(waveform: np.ndarray, response: Response) -> np.ndarray:
    """The waveform (N) through a room, with its tail (N + samples - 1), float32: FFTs of blocks, added up."""
    hop = response.size - response.samples + 1
    blocks = np.zeros((-(-len(waveform) // hop), hop), np.float32)
    blocks.reshape(-1)[: len(waveform)] = waveform
    parts = np.asarray(scipy.fft.irfft(scipy.fft.rfft(blocks, response.size) * response.spectrum, response.size))
    heard = np.zeros(len(blocks) * hop + response.size, np.float32)
    for number, part in enumerate(parts):
        heard[number * hop :][: response.size] += part
    return heard[: len(waveform) + response.samples - 1]
