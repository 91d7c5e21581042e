"""Gain: quiet speech lifted, loud speech and noise left alone, nothing beyond full scale, streamed as whole."""

import numpy as np
import pytest

from glmasr.frontend.gain import CEILING, Gain, GainState, gain_of, lifted, lifted_for_detector
from glmasr.frontend.level import rms_dbfs
from glmasr.frontend.pieces import listen
from glmasr.frontend.vad import FRAME_SAMPLES, FRAME_SECONDS
from glmasr.speech import RATE_HZ, InputError


@pytest.fixture(scope="module")
def talk(spoken) -> np.ndarray:
    """Four loud sentences with half a second between them, and not a whole number of frames."""
    parts = [clip.numpy() / np.abs(clip.numpy()).max() * 0.7 for clip in spoken]
    joined = np.concatenate([part for clip in parts for part in (np.zeros(RATE_HZ // 2, np.float32), clip)])
    return joined[: len(joined) // FRAME_SAMPLES * FRAME_SAMPLES - 100].astype(np.float32)


@pytest.fixture(scope="module")
def speech(talk) -> np.ndarray:
    return listen([talk]).speech


def quieter(waveform: np.ndarray, db: float) -> np.ndarray:
    return (waveform * 10 ** (db / 20)).astype(np.float32)


def through(waveform: np.ndarray, probabilities: np.ndarray, gain: Gain | None = None) -> np.ndarray:
    return (gain or Gain()).step(waveform, probabilities, GainState())[0]


def detected(waveform: np.ndarray) -> np.ndarray:
    """Probabilities of speech as the helped detector hears it."""
    return listen(lifted_for_detector(Gain(), [waveform])).speech


def speech_levels(waveform: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Levels in dBFS of the frames that are speech."""
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.array([rms_dbfs(frame) for frame in frames[probabilities[: len(frames)] > 0.9]])


def test_loud_speech_passes_bit_for_bit(talk, speech):
    np.testing.assert_array_equal(through(talk, speech), talk)
    over = (talk * 3).astype(np.float32)
    np.testing.assert_array_equal(through(over, speech), over)


@pytest.mark.parametrize("corpus", ["fsdd", "librispeech_mini", "aishell_sample", "arctic_fraser"])
def test_real_loud_recordings_pass_bit_for_bit(shared_corpora, corpus):
    from glmasr.frontend.audio import read_audio

    files = sorted((shared_corpora / corpus / "audio").iterdir())
    for file in files[:: len(files) // 4][:4]:
        waveform = read_audio(str(file))
        waveform = (waveform / np.abs(waveform).max() * 0.9).astype(np.float32)
        np.testing.assert_array_equal(through(waveform, detected(waveform)), waveform)


@pytest.mark.parametrize("db", [-30, -40, -50])
def test_quiet_speech_is_lifted_within_bounds(talk, speech, db):
    quiet = quieter(talk, db)
    raised = np.median(speech_levels(through(quiet, speech), speech) - speech_levels(quiet, speech))
    assert 3 < raised <= 40.01
    bound = Gain(max_gain_db=6.0)
    assert np.abs(through(quiet, speech, bound)).max() <= np.abs(quiet).max() * 10 ** (6 / 20) * 1.0001
    np.testing.assert_array_equal(through(quiet, speech, Gain(slope=0.0)), quiet)


def test_a_change_of_level_comes_out_smaller(talk, speech):
    """A tenth of what is under the threshold is left over at a slope of 0.9, up to where the gain is at its most."""
    gain = Gain(slope=0.9, max_gain_db=60.0)
    levels = [np.median(speech_levels(through(quieter(talk, db), speech, gain), speech)) for db in (-25, -35, -45)]
    assert 0 <= levels[0] - levels[1] < 3 and 0 <= levels[1] - levels[2] < 3


def test_steps_of_any_size_give_bit_for_bit_what_the_whole_gives(talk, speech):
    waveform = np.concatenate([quieter(talk, -35), talk])
    probabilities = listen([waveform]).speech
    whole, end = Gain().step(waveform, probabilities, GainState())
    assert not np.array_equal(whole, waveform)
    rng = np.random.default_rng(0)
    for counts in ([1] * len(probabilities), rng.integers(0, 30, len(probabilities))):
        state, made, done = GainState(), [], 0
        for count in counts:
            stop = min(done + int(count), len(probabilities))
            part = waveform[done * FRAME_SAMPLES : stop * FRAME_SAMPLES]
            out, state = Gain().step(part, probabilities[done:stop], state)
            made.append(out)
            done = stop
        np.testing.assert_array_equal(np.concatenate(made), whole)
        assert state.gain_db == end.gain_db
    for sizes in ([1, 511, 512, 513, 2_000], rng.integers(1, 3_000, 400)):
        blocks = np.split(waveform, np.minimum(np.cumsum(sizes), len(waveform)))
        np.testing.assert_array_equal(np.concatenate([*lifted(Gain(), blocks, probabilities)]), whole)
        one = np.concatenate([*lifted_for_detector(Gain(), blocks)])
        np.testing.assert_array_equal(one, np.concatenate([*lifted_for_detector(Gain(), [waveform])]))


def test_a_state_is_not_changed_by_its_use(talk, speech):
    quiet = quieter(talk, -35)
    _, state = Gain().step(quiet[: 40 * FRAME_SAMPLES], speech[:40], GainState())
    rest = quiet[40 * FRAME_SAMPLES :], speech[40:]
    np.testing.assert_array_equal(Gain().step(*rest, state)[0], Gain().step(*rest, state)[0])


def test_what_is_to_come_changes_nothing(talk, speech):
    quiet, place = quieter(talk, -35), 80 * FRAME_SAMPLES
    other = np.concatenate([quiet[:place], talk[place:]])
    np.testing.assert_array_equal(through(other, speech)[:place], through(quiet, speech)[:place])


@pytest.mark.parametrize("level", [-80, -60, -40, -20])
def test_noise_alone_is_never_lifted(level):
    noise = quieter(np.random.default_rng(0).standard_normal(5 * RATE_HZ), level)
    np.testing.assert_array_equal(through(noise, detected(noise)), noise)


def test_the_gain_is_let_go_in_a_pause_and_starts_again_smoothly(talk, speech):
    hiss = quieter(np.random.default_rng(0).standard_normal(3 * RATE_HZ), -70)
    frames, quiet = len(talk) // FRAME_SAMPLES, quieter(talk, -35)[: len(talk) // FRAME_SAMPLES * FRAME_SAMPLES]
    probabilities = np.concatenate([speech[:frames], np.zeros(len(hiss) // FRAME_SAMPLES + 1, np.float32)])
    given = np.concatenate([quiet, hiss])
    given[given == 0] = 1e-6
    heard = through(given, probabilities)
    after = round((Gain().hold_seconds + Gain().max_gain_db / Gain().fall_db_per_second + 2 * FRAME_SECONDS) * RATE_HZ)
    np.testing.assert_array_equal(heard[len(quiet) + after :], given[len(quiet) + after :])
    gains_db = 20 * np.log10(heard / given)
    assert np.abs(np.diff(gains_db)).max() < 0.1 and gains_db.max() > 10 and gains_db.min() > -1e-4


def test_noise_is_never_lifted_to_where_speech_was(talk, speech):
    """At 5 dB above the noise little is gained, where the same speech alone is lifted a lot."""
    rng, quiet = np.random.default_rng(0), quieter(talk, -48)
    active = np.median(speech_levels(quiet, speech))
    noise = quieter(rng.standard_normal(len(quiet)), active - 5)
    noisy = (quiet + noise).astype(np.float32)
    assert np.median(speech_levels(through(noisy, speech), speech) - speech_levels(noisy, speech)) < 12
    assert np.median(speech_levels(through(quiet, speech), speech) - speech_levels(quiet, speech)) > 18


def test_a_sudden_shout_never_goes_beyond_full_scale(talk, speech):
    rng = np.random.default_rng(0)
    quiet = quieter(talk, -40)
    for _ in range(20):
        start, loudness = int(rng.integers(0, len(talk) - 5_000)), float(rng.uniform(0.3, 1.0))
        shout = quiet.copy()
        shout[start:] = talk[start:] / np.abs(talk[start:]).max() * loudness
        for heard in (through(shout, speech), *lifted_for_detector(Gain(), [shout])):
            assert np.abs(heard).max() <= max(CEILING, np.abs(shout).max()) + 1e-6 and np.isfinite(heard).all()
    over = (talk * 3).astype(np.float32)
    mixed = np.concatenate([quiet[: 100 * FRAME_SAMPLES], over[100 * FRAME_SAMPLES :]])
    assert np.abs(through(mixed, speech)).max() <= np.abs(mixed).max()


def test_after_a_shout_the_gain_is_down_at_once(talk, speech):
    place = 110 * FRAME_SAMPLES
    mixed = np.concatenate([quieter(talk, -35)[:place], talk[place:]])
    heard = through(mixed, np.ones_like(speech))
    loud = np.flatnonzero(np.abs(mixed) > 0.3)
    begin = loud[0] // FRAME_SAMPLES * FRAME_SAMPLES
    path = np.abs(heard[loud]) / np.abs(mixed[loud])
    assert np.abs(heard[:begin]).max() > 2 * np.abs(mixed[:begin]).max()
    assert path[loud > begin + 3 * FRAME_SAMPLES].max() < 3.3 and path[-1] == 1


def told(gain: Gain, *frames: tuple[float, float]) -> tuple[list[float], np.ndarray]:
    """The gain behind each frame of a tone of (level in dBFS, probability of speech), and what the last became."""
    tone, state, gains, heard = np.sqrt(2) * np.sin(np.arange(FRAME_SAMPLES) * np.pi / 4), GainState(), [], np.zeros(0)
    for level, probability in frames:
        heard, state = gain.step(quieter(tone, level), np.array([probability], np.float32), state)
        gains.append(state.gain_db)
    return gains, heard


def test_it_rises_only_while_somebody_speaks_is_held_and_falls_at_its_pace():
    gain = Gain(memory_seconds=1.0, hold_seconds=0.1)
    gains, _ = told(gain, *[(-90, 0.0)] * 10, *[(-60, 1.0)] * 40, *[(-60, 0.1)] * 40)
    steps = np.diff(gains)
    assert gains[:15] == [0.0] * 15 and max(gains) == pytest.approx(20, abs=0.01)
    assert steps.max() == pytest.approx(gain.rise_db_per_second * FRAME_SECONDS)
    assert steps[50:52].tolist() == [0, 0] and gains[-1] == 0
    assert steps.min() == pytest.approx(-gain.fall_db_per_second * FRAME_SECONDS)
    interrupted, _ = told(gain, *[(-90, 0.0)] * 10, *[(-60, 1.0)] * 8, (-60, 0.1))
    assert 0 < interrupted[-2] < 20 and interrupted[-1] == interrupted[-2]


def test_it_falls_in_the_first_frame_that_is_louder():
    gains, _ = told(Gain(), *[(-90, 0.0)] * 10, *[(-60, 1.0)] * 40, (-30, 1.0), (-30, 1.0))
    fall = Gain().fall_db_per_second * FRAME_SECONDS
    assert gains[-2:] == pytest.approx([gains[-3] - fall, gains[-3] - 2 * fall])


def test_a_loud_frame_has_no_gain_from_its_sixth_millisecond_on():
    frames = *[(-90, 0.0)] * 10, *[(-60, 1.0)] * 40, (-4, 1.0)
    gains, heard = told(Gain(), *frames)
    loud = quieter(np.sqrt(2) * np.sin(np.arange(FRAME_SAMPLES) * np.pi / 4), -4)
    assert gains[-2] > 19 and gains[-1] == pytest.approx(20 * np.log10(CEILING / np.abs(loud).max()), abs=1e-5)
    path = heard[80:] / np.where(loud[80:] == 0, 1, loud[80:])
    assert path.max() <= 10 ** (gains[-1] / 20) + 1e-6 and np.abs(heard).max() <= np.float32(CEILING)


def test_a_click_in_quiet_speech_is_not_lifted_through_the_ceiling():
    gain, state, quiet = (
        Gain(threshold_dbfs=-10.0),
        GainState(),
        quieter(np.sqrt(2) * np.sin(np.arange(FRAME_SAMPLES) * np.pi / 4), -60),
    )
    _, state = gain.step(np.zeros(10 * FRAME_SAMPLES, np.float32), np.zeros(10, np.float32), state)
    while not state.gain_db:
        _, state = gain.step(quiet, np.ones(1, np.float32), state)
    click, room_db = quiet.copy(), state.gain_db + 1.5
    click[-1] = CEILING / 10 ** (room_db / 20)
    heard, after = gain.step(click, np.ones(1, np.float32), state)
    assert state.gain_db < after.gain_db <= room_db + 1e-5 and abs(heard[-1]) <= np.float32(CEILING)


def test_the_detector_hears_quiet_speech_as_loud_speech(talk):
    loud, quiet = listen([talk]).speech, quieter(talk, -65)
    assert np.mean(listen([quiet]).speech > 0.5) < 0.5 * np.mean(loud > 0.5)
    assert np.mean(detected(quiet) > 0.5) > 0.8 * np.mean(loud > 0.5)


def test_frames_and_probabilities_belong_together():
    with pytest.raises(ValueError, match="513 samples have 2 frames"):
        Gain().step(np.zeros(513, np.float32), np.zeros(1, np.float32), GainState())
    empty, state = Gain().step(np.zeros(0, np.float32), np.zeros(0, np.float32), GainState())
    assert empty.dtype == np.float32 and len(empty) == 0 and state.gain_db == 0


@pytest.mark.parametrize("wrong", [{"slope": 1.5}, {"max_gain_db": -1.0}, {"memory_seconds": 0.0}, {"knee_db": np.nan}])
def test_a_parameter_that_cannot_work_is_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        gain_of(wrong)


def test_gain_is_a_choice():
    assert gain_of(False) is None and gain_of(True) == Gain() == gain_of({})
    assert gain_of({"slope": 0.5}) == Gain(slope=0.5) == gain_of({"slope": 0.5}, slope=0.0)
    assert gain_of(True, slope=0.0) == Gain(slope=0.0) == gain_of({}, slope=0.0) and gain_of(False, slope=0.0) is None
    with pytest.raises(InputError, match="did you mean 'slope'"):
        gain_of({"slop": 0.5})
