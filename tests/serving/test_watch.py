"""A folder that people put recordings in: each told of once it is whole, and again when it changes."""

import os
from pathlib import Path

import pytest

from glmasr.serving import watch
from glmasr.serving.watch import arrivals, owner, states
from glmasr.speech import InputError

SUFFIXES = (".wav", ".mp3")


class Clock:
    """Time that passes only by sleeping, and what happens at each tick of it."""

    def __init__(self, script: dict[int, object]):
        self.now, self.script = 0, script

    def __call__(self) -> float:
        return float(self.now)

    def sleep(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds))):
            self.now += 1
            for event in [self.script.get(self.now)]:
                if event is not None:
                    event()
        if self.now > 40:
            raise KeyboardInterrupt


def told(folder: Path, script: dict[int, object] | None = None, on_file=None) -> list[tuple[int, str]]:
    """When each file was told of, until second 40."""
    clock, found = Clock(script or {}), []
    with pytest.raises(KeyboardInterrupt):
        for path in arrivals(folder, SUFFIXES, 2.0, 1.0, clock.sleep, clock):
            found.append((clock.now, path.relative_to(folder).as_posix()))
            if on_file:
                on_file(path)
    return found


def test_files_are_told_once_they_stand_still(tmp_path):
    (tmp_path / "old.wav").write_bytes(b"1")
    grows = tmp_path / "grows.wav"
    script = {second: lambda second=second: grows.write_bytes(b"1" * second) for second in range(5, 11)}
    assert told(tmp_path, script) == [(2, "old.wav"), (12, "grows.wav")]


def test_one_that_is_rewritten_in_the_same_length_comes_again(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(b"1")
    os.utime(file, ns=(1, 1))
    assert told(tmp_path, {9: lambda: os.utime(file, ns=(2, 2))}) == [(2, "a.wav"), (11, "a.wav")]


def test_one_that_grows_within_a_tick_of_the_clock_comes_again(tmp_path):
    file = tmp_path / "a.wav"

    def write(content):
        file.write_bytes(content)
        os.utime(file, ns=(1, 1))

    write(b"1")
    assert told(tmp_path, {9: lambda: write(b"12")}) == [(2, "a.wav"), (11, "a.wav")]


def test_one_that_goes_and_comes_back_is_told_again(tmp_path):
    file = tmp_path / "a.wav"

    def write():
        """As one that is moved away and back is: of the same time."""
        file.write_bytes(b"1")
        os.utime(file, ns=(1, 1))

    write()
    assert told(tmp_path, {6: file.unlink, 9: write}) == [(2, "a.wav"), (11, "a.wav")]


def test_of_those_that_wait_the_oldest_comes_first(tmp_path):
    for name, age in (("a", 3), ("b", 1), ("c", 2)):
        (tmp_path / f"{name}.wav").write_bytes(b"1")
        os.utime(tmp_path / f"{name}.wav", ns=(age, age))
    assert [name for _, name in told(tmp_path)] == ["b.wav", "c.wav", "a.wav"]


def test_a_folder_that_is_slow_to_look_through_is_looked_through_less_often(tmp_path, monkeypatch):
    clock, slept = Clock({}), []

    def slow(*_):
        clock.now += 3
        return {}

    def sleep(seconds):
        slept.append(seconds)
        clock.sleep(seconds)

    monkeypatch.setattr(watch, "states", slow)
    with pytest.raises(KeyboardInterrupt):
        next(arrivals(tmp_path, SUFFIXES, 2.0, 1.0, sleep, clock))
    assert set(slept) == {27.0}


def test_one_that_changes_while_another_is_heard_waits(tmp_path):
    for i, name in enumerate("ab"):
        (tmp_path / f"{name}.wav").write_bytes(b"1")
        os.utime(tmp_path / f"{name}.wav", ns=(i, i))
    touched = []

    def on_file(path):
        if not touched:
            touched.append((tmp_path / "b.wav").write_bytes(b"12"))

    assert told(tmp_path, on_file=on_file) == [(2, "a.wav"), (4, "b.wav")]


def test_folders_in_it_count_and_hidden_and_other_files_do_not(tmp_path):
    for name in ("deep/er/a.MP3", ".b.wav.xyz", ".hidden/c.wav", ".d.wav", "e.srt", "f.wav.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    assert told(tmp_path) == [(2, "deep/er/a.MP3")]
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    assert [path.name for path in states(tmp_path, SUFFIXES)] == ["a.MP3"]


def test_a_folder_that_goes_away_and_comes_back_is_no_trouble(tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()

    def back():
        inbox.mkdir()
        (inbox / "a.wav").write_bytes(b"1")

    assert told(inbox, {3: inbox.rmdir, 6: back}) == [(8, "a.wav")]
    with pytest.raises(InputError, match="is no folder to watch"):
        next(arrivals(tmp_path / "none", SUFFIXES))


def test_of_two_with_one_name_the_older_owns_it(tmp_path):
    for name, age in (("a [1].wav", 1), ("a [1].mp3", 2), ("a [1].srt", 0), ("a [1].b.wav", 0)):
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, ns=(age, age))
    assert owner(tmp_path / "a [1].mp3", SUFFIXES) == tmp_path / "a [1].wav"
    assert owner(tmp_path / "a [1].wav", SUFFIXES) == tmp_path / "a [1].wav"
    (tmp_path / "a [1].WAV").write_bytes(b"1")
    os.utime(tmp_path / "a [1].WAV", ns=(0, 0))
    assert owner(tmp_path / "a [1].mp3", SUFFIXES) == tmp_path / "a [1].WAV"
    assert owner(tmp_path / "gone.wav", SUFFIXES) == tmp_path / "gone.wav"
