"""A clean waveform in, the same as another place, line or volume would have it out: the conditions of a test set."""

import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.augment.noise import list_recordings, mix
from glmasr.augment.reverb import VERSION, Response, Rooms, convolve, prepare_response, read_response, simulate
from glmasr.augment.telephone import Telephone
from glmasr.frontend.audio import parse_codec, read_audio, resample, transcode, write_audio
from glmasr.frontend.level import amplify, rms
from glmasr.speech import RATE_HZ, InputError, Utterance

SILENT_SHARE = 0.1
"""A stretch 20 dB below its clip is the pause between two barks: raised to an SNR, it would be the codec one hears."""

ROOMS = 16
DISTANCE_METERS = (0.5, 3.0)
ROOM_SEED = 1_000_003
"""Far from the seeds that training's rooms have: those a benchmark simulates are new to every system."""


@dataclass(frozen=True)
class Condition:
    """What happens to the speech, in this order; None and False leave a step out.

    It is played `speed` times as fast (tempo and pitch); it sounds in a `room`: one of 16 simulated ones with that
    reverberation time in seconds, or one of the recorded `responses` a pattern names; recorded noise of the group
    `noise` comes at `snr_db` below the speech as the room has it; a `telephone` line of 300 to 3,400 Hz and 8 bits
    carries it; a `codec` does (as `transcode` names them); and it is louder by `level_db`. What that gain gives is kept
    in 16 bits, as a quiet recording is: what falls below the last bit is lost.
    """

    snr_db: float | None = None
    level_db: float | None = None
    recordings: tuple[str, ...] = ()
    noise: str | None = None
    room: float | str | None = None
    telephone: bool = False
    codec: str | None = None
    speed: float | None = None
    responses: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """clean, or what is done in its order: speed=0.9,room=0.5,snr=5,noise=unseen,telephone,codec=gsm,level=-30."""
        parts = {
            "speed": self.speed,
            "room": self.room,
            "snr": self.snr_db,
            "noise": self.noise,
            "telephone": self.telephone or None,
            "codec": self.codec,
            "level": self.level_db,
        }
        return ",".join(_in_words(part, value) for part, value in parts.items() if value is not None) or "clean"

    @property
    def clips(self) -> list[str]:
        """The names of the noise recordings, the same on every machine."""
        return [Path(path).stem for path in self.recordings]

    def as_json(self) -> dict[str, float | str | bool]:
        """The row that `read_conditions` made it of, {} where it is clean; what is left out is absent."""
        row = {key: value for key, value in asdict(self).items() if key not in ("recordings", "responses")}
        return {key: value for key, value in row.items() if value is not None and value is not False}

    def identity(self) -> list:
        """What the damage depends on, for a journal to tell it from another; nothing where it is clean."""
        if self.name == "clean":
            return []
        room = [] if self.room is None else [VERSION, [Path(path).stem for path in self.responses]]
        return [self.name, self.clips if self.snr_db is not None else [], *room]

    def apply(self, waveform: np.ndarray, key: str) -> np.ndarray:
        """(N) → (N), or (N / speed).

        What is drawn depends on `key` (an utterance's id) alone, so that two SNRs differ in nothing else.
        """
        if not len(waveform):
            return waveform
        if self.speed is not None:
            waveform = resample(waveform, self.speed, 1.0)
        if self.room is not None:
            waveform = reverberate(waveform, self._response(draws(key, "room")))
        if self.snr_db is not None:
            waveform = mix(waveform, self._noise(len(waveform), draws(key)), self.snr_db)
        if self.telephone:
            waveform = Telephone(probability=1.0)(waveform, draws(key, "telephone"))
        if self.codec is not None:
            loudest = _loudest(waveform)
            waveform = transcode(waveform / loudest, self.codec) * loudest
        return waveform if self.level_db is None else in_16_bits(amplify(waveform, self.level_db))

    def _noise(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """A stretch of the first clip in a drawn order that is not silent where it is drawn."""
        for place in rng.permutation(len(self.recordings)):
            clip = read_audio(self.recordings[place])
            clip = np.resize(clip, max(len(clip), samples))
            start = rng.integers(len(clip) - samples + 1)
            stretch = clip[start : start + samples]
            if rms(stretch) > SILENT_SHARE * rms(clip):
                return stretch
        raise InputError(f"condition '{self.name}' needs noise that is heard: name recordings with noise.path=…")

    def _response(self, rng: np.random.Generator) -> Response:
        if not isinstance(self.room, str):
            return simulated(float(self.room or 0.0), int(rng.integers(ROOMS)))
        if not self.responses:
            raise InputError(f"condition '{self.name}' needs recorded rooms: name a folder of impulse responses")
        return read_response(self.responses[rng.integers(len(self.responses))])


CLEAN = Condition()


def read_conditions(
    rows: Sequence[dict[str, Any]],
    noise_path: str | None = None,
    noise_clips: Sequence[str] = ("*",),
    noises: Mapping[str, Mapping[str, Any]] | None = None,
    room_path: str | None = None,
) -> list[Condition]:
    """One for each of {}, {snr_db: 10}, {room: 0.5}, …; noise from a folder or manifest, by patterns of names.

    `noises` are named groups of it that a row's `noise` may choose, {unseen: {path: …, clips: [5-*]}}, where what is
    left out is as it is for rows without one. `room_path` has the impulse responses that a row's `room` names by a
    pattern.
    """
    conditions = [_read_condition(row, noise_path, noise_clips, noises or {}, room_path) for row in rows]
    if len({condition.name for condition in conditions}) < len(conditions):
        raise InputError(f"two conditions are the same: {', '.join(condition.name for condition in conditions)}")
    return conditions


def grid(
    snr: Sequence[float] = (),
    noises: Sequence[str] = (),
    level: Sequence[float] = (),
    rooms: Sequence[float | str] = (),
    telephone: bool = False,
    codecs: Sequence[str] = (),
    speeds: Sequence[float] = (),
) -> list[dict[str, Any]]:
    """Rows for `read_conditions`: clean, every SNR with every group of noise, and the others one at a time.

    A level of 0 dB and a speed of 1 are the clean row and get none of their own.
    """
    groups = [{"noise": noise} for noise in noises] or [{}]
    return [
        {},
        *({"snr_db": db, **group} for group in groups for db in snr),
        *({"level_db": db} for db in level if db),
        *({"room": room} for room in rooms),
        *([{"telephone": True}] if telephone else []),
        *({"codec": codec} for codec in codecs),
        *({"speed": speed} for speed in speeds if speed != 1),
    ]


def fingerprint_of(condition: Condition, utterances: Sequence[Utterance], cache: str | Path | None = None) -> str:
    """A sha256 over the 16-bit samples of all utterances under the condition, in whatever order they come.

    `cache` is a JSON file that keeps it. What is found there counts if the recordings, the noise and the damaged first
    utterance are the same as then, so that another version of a codec is noticed.
    """
    place = Path(cache) if cache else None
    known = _read_json(place) if place else {}
    state = _state_of(condition, utterances)
    if state not in known:
        known[state] = _digest(sorted([u.id, hash_samples(hear(u, condition))] for u in utterances))
        if place:
            _write_text(place, json.dumps(known, indent=1))
    return known[state]


def write_damaged(condition: Condition, utterances: Sequence[Utterance], folder: str | Path) -> Path:
    """Keep what is heard as 16-bit FLAC in `folder`/<name of the condition>, for other programs; their manifest.jsonl.

    Its rows have a `sha256` of the samples beside what any manifest has. A folder that is there and still right is left
    alone; a new one appears whole or not at all.
    """
    home = Path(folder) / re.sub(r"[^\w.=+-]", "_", condition.name)  # a comma would make it two manifests
    state = _state_of(condition, utterances)
    if _read_json(home / "about.json").get("state") != state:
        unfinished = home.with_name(f".{home.name}.{os.getpid()}.tmp")
        try:
            unfinished.mkdir(parents=True)
            rows = [_write_utterance(u, condition, unfinished, f"{i:06d}.flac") for i, u in enumerate(utterances)]
            _write_text(unfinished / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            fingerprint = _digest(sorted([row["id"], row["sha256"]] for row in rows))
            about = {"condition": condition.as_json(), "fingerprint": fingerprint, "state": state}
            _write_text(unfinished / "about.json", json.dumps(about, indent=1))
            shutil.rmtree(home, ignore_errors=True)
            unfinished.rename(home)
        except OSError as error:
            message = f"cannot keep damaged speech in '{folder}' ({error.strerror})"
            raise InputError(f"{message}; choose a writable folder") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return home / "manifest.jsonl"


def hear(utterance: Utterance, condition: Condition) -> np.ndarray:
    """The utterance (N) as every system hears it under the condition."""
    waveform = read_audio(utterance.audio, utterance.offset_seconds, utterance.duration_seconds)
    return condition.apply(waveform, utterance.id)


def hash_samples(waveform: np.ndarray) -> str:
    """A sha256 over the waveform (N) in 16 bits, turned down to full scale where it is louder."""
    return hashlib.sha256(to_16_bits(turn_down(waveform)).tobytes()).hexdigest()


def turn_down(waveform: np.ndarray) -> np.ndarray:
    """The waveform (N), quieter where it goes beyond ±1: to clip it would be a damage that no condition names."""
    return waveform / _loudest(waveform)


def to_16_bits(waveform: np.ndarray) -> np.ndarray:
    """The waveform (N) as the integers (N) of a 16-bit file, samples beyond ±1 clipped."""
    return (in_16_bits(waveform) * 32768).astype("<i2")


def in_16_bits(waveform: np.ndarray) -> np.ndarray:
    """The waveform (N) as a 16-bit file would give it back."""
    return (np.clip(np.round(waveform * 32768), -32768, 32767) / 32768).astype(np.float32)


def reverberate(waveform: np.ndarray, response: Response) -> np.ndarray:
    """The waveform (N) in a room (N): direct sound and level stay, what rings on behind the end is lost."""
    heard = convolve(waveform, response)[response.direct_sample :][: len(waveform)]
    level = rms(heard)
    return (heard * (rms(waveform) / level)).astype(np.float32) if level else waveform


@functools.lru_cache(maxsize=128)
def simulated(rt60_seconds: float, number: int) -> Response:
    """The simulated room of this number and reverberation time: the same everywhere, kept in memory (0.2 s to make)."""
    drawn = Rooms(ROOMS, rt60_seconds, rt60_seconds, *DISTANCE_METERS, ROOM_SEED, folder="").draw(number)
    return prepare_response(simulate(drawn, ROOM_SEED + number))


def draws(key: str, step: str = "") -> np.random.Generator:
    """What is drawn for an utterance's id in one step, whatever the other steps are."""
    return np.random.default_rng(list(hashlib.sha256(f"{step}{key}".encode()).digest()))


def _read_condition(
    row: Mapping[str, Any],
    noise_path: str | None,
    noise_clips: Sequence[str],
    noises: Mapping[str, Mapping[str, Any]],
    room_path: str | None,
) -> Condition:
    recordings: tuple[str, ...] = ()
    group, room = row.get("noise"), row.get("room")
    if group is not None and group not in noises:
        raise InputError(f"there is no group of noise called '{group}': give its recordings in noises.{group}")
    if row.get("snr_db") is not None:
        chosen = noises.get(group or "", {})
        recordings = _find_noise(chosen.get("path", noise_path), chosen.get("clips", noise_clips))
    responses = _find_rooms(room_path, room) if isinstance(room, str) else ()
    try:
        condition = Condition(**row, recordings=recordings, responses=responses)
    except TypeError as error:
        steps = "snr_db, level_db, noise, room, telephone, codec and speed"
        raise InputError(f"a condition has any of {steps}, or nothing ({error})") from error
    _check(condition)
    return condition


def _find_noise(path: str | None, clips: Sequence[str]) -> tuple[str, ...]:
    if not path:
        raise InputError("a condition with snr_db needs recorded noise: name a folder or manifest with noise.path=…")
    patterns = [clips] if isinstance(clips, str) else clips
    found = tuple(p for p in list_recordings(path) if any(fnmatch(Path(p).stem, pattern) for pattern in patterns))
    if not found:
        raise InputError(f"no recording in '{path}' is called like {', '.join(patterns)}")
    return found


def _find_rooms(path: str | None, pattern: str) -> tuple[str, ...]:
    if not path:
        raise InputError(f"the room '{pattern}' must be a recorded one: name a folder of impulse responses, or an RT60")
    found = tuple(p for p in list_recordings(path, "rooms") if fnmatch(Path(p).stem, pattern))
    if not found:
        raise InputError(f"no impulse response in '{path}' is called like {pattern}")
    return found


def _check(condition: Condition) -> None:
    """An InputError where a value is none."""
    if condition.noise is not None and condition.snr_db is None:
        raise InputError(f"the condition '{condition.name}' names noise but no snr_db: say how loud the noise is")
    for part, value in (("speed", condition.speed), ("room", condition.room)):
        if value is not None and not isinstance(value, str) and not value > 0:
            raise InputError(f"the condition '{condition.name}' has a {part} that is not above 0: give another")
    if condition.codec is not None:
        parse_codec(condition.codec)


def _in_words(part: str, value: float | str | bool) -> str:
    if value is True:
        return part
    return f"{part}={value}" if isinstance(value, str) else f"{part}={value:g}"


def _loudest(waveform: np.ndarray) -> float:
    return max(1.0, float(np.abs(waveform).max(initial=0.0)))


def _write_utterance(utterance: Utterance, condition: Condition, folder: Path, name: str) -> dict[str, Any]:
    """Write one file, and return its row."""
    waveform = hear(utterance, condition)
    write_audio(folder / name, to_16_bits(turn_down(waveform)))
    told = {"text": utterance.text, "language": utterance.language, "speaker": utterance.speaker}
    return {
        "id": utterance.id,
        "audio_filepath": name,
        "duration": len(waveform) / RATE_HZ,
        **{key: value for key, value in told.items() if value},
        "split": utterance.split,
        "sha256": hash_samples(waveform),
    }


def _state_of(condition: Condition, utterances: Sequence[Utterance]) -> str:
    """Names the samples without computing more of them than the first utterance's."""
    rows = sorted([u.id, _file_state(u.audio), u.offset_seconds, u.duration_seconds] for u in utterances)
    files = [_file_state(path) for path in (*condition.recordings, *condition.responses)]
    first = min(utterances, key=lambda utterance: utterance.id, default=None)
    probe = hash_samples(hear(first, condition)) if first else ""
    return _digest([condition.as_json(), files, rows, probe])


def _file_state(audio: str | bytes) -> list:
    if isinstance(audio, bytes):
        return [hashlib.sha256(audio).hexdigest()]
    found = Path(audio)
    return [audio, found.stat().st_size, found.stat().st_mtime_ns] if found.exists() else [audio]


def _read_json(place: Path) -> dict[str, str]:
    """What the file keeps; nothing where it is not there or is broken, as it can be made again."""
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_text(place: Path, text: str) -> None:
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, place)
    except OSError as error:
        raise InputError(f"'{place}' cannot be written ({error.strerror}): choose a writable folder") from error


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
