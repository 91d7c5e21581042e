"""Waveforms in, transcripts out: in order, whole, each as if it were alone."""

import numpy as np
import pytest

from glmasr import transcriber as room
from glmasr.bundle import build_recognizer, save_bundle
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ, InputError, Segment, Word
from glmasr.text.tokenizer import learn_characters
from glmasr.transcriber import BATCH_SECONDS, PIECE_SECONDS, Transcriber, batches, cut, moved
from tests.small import SMALL, composed, random_bundle

CHARACTERS = learn_characters(["abc de 北京"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundle of a run called mine."""
    folder = tmp_path_factory.mktemp("runs") / "mine" / "bundle"
    random_bundle(folder, CHARACTERS, language="zh")
    return folder


@pytest.fixture(scope="module")
def speech(rhyme_root) -> list[np.ndarray]:
    """Five recordings of different length, one of them cut to 0.3 s."""
    files = [rhyme_root / "rhyme_test" / "audio" / f"M4_b{row}_w1.flac" for row in range(1, 6)]
    waveforms = [read_audio(str(file)) for file in files]
    return [*waveforms[:4], waveforms[4][8000:12800]]


@pytest.mark.parametrize("decoding", room.SEARCHES)
def test_a_batch_hears_what_each_would_be_heard_as_alone(folder, speech, decoding):
    system = Transcriber(str(folder), decoding=decoding)
    waveforms = [speech[4], np.zeros(0, np.float32), *speech[:4], np.zeros(10, np.float32)]
    together, alone = system(waveforms), [system([waveform])[0] for waveform in waveforms]
    assert [t.text for t in together] == [t.text for t in alone]
    assert len({t.text for t in together}) > 3
    assert [t.duration_seconds for t in together] == [len(waveform) / RATE_HZ for waveform in waveforms]
    for one, other in zip(together, alone, strict=True):
        times = [(w.start_seconds, w.end_seconds) for s in one.segments for w in s.words]
        assert times == [(w.start_seconds, w.end_seconds) for s in other.segments for w in s.words]
    assert together[1].text == "" and together[1].segments == ()


def test_words_follow_each_other_within_the_recording(folder, speech):
    long = np.concatenate(speech * 4)
    transcript = Transcriber(str(folder))([long])[0]
    assert len(long) > PIECE_SECONDS * RATE_HZ and len(transcript.segments) > 1
    times = [t for s in transcript.segments for w in s.words for t in (w.start_seconds, w.end_seconds)]
    assert len(times) > 20 and times == sorted(times)
    assert times[0] >= 0 and PIECE_SECONDS < times[-1] <= transcript.duration_seconds
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    for segment in transcript.segments:
        assert segment.start_seconds == segment.words[0].start_seconds
        assert "".join(w.text for w in segment.words) == segment.text.replace(" ", "")
        assert all(0 < w.confidence <= 1 for w in segment.words)


def test_tokens_become_words_with_times(folder):
    system, frame = Transcriber(str(folder)), room.FRAME_SECONDS
    tokens = tuple(CHARACTERS.encode("ab c 北京"))
    starts, ends = tuple(range(0, 14, 2)), tuple(range(1, 15, 2))
    found = system.segment(Hypothesis(tokens, -1.0, starts, ends, (0.9, 0.5, 0.1, 0.8, 0.1, 0.7, 0.6)), 0.5)
    assert frame == pytest.approx(0.04) and found.text == "ab c 北京"
    assert [(w.text, w.confidence) for w in found.words] == [("ab", 0.5), ("c", 0.8), ("北", 0.7), ("京", 0.6)]
    times = [t / frame for w in found.words for t in (w.start_seconds, w.end_seconds)]
    assert times == pytest.approx([0, 3, 6, 7, 10, 11, 12, 12.5])  # the last frame is cut by the end


def test_a_search_without_times_gives_the_whole_piece(folder):
    found = Transcriber(str(folder)).segment(Hypothesis(tuple(CHARACTERS.encode("ab")), -1.0), 2.5)
    assert found == Segment("ab", 0.0, 2.5, ())


def test_long_audio_is_cut_where_it_is_quiet_and_nothing_is_lost():
    rng = np.random.default_rng(0)
    waveform = rng.standard_normal(round(95.3 * RATE_HZ)).astype(np.float32)
    quiet = [27.35, 50.65]
    for second in quiet:
        waveform[round((second - 0.2) * RATE_HZ) : round((second + 0.2) * RATE_HZ)] *= 1e-3
    pieces = cut(waveform)
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), waveform)
    assert [start for start, _ in pieces] == np.cumsum([0, *(len(piece) for _, piece in pieces[:-1])]).tolist()
    assert all(len(piece) <= PIECE_SECONDS * RATE_HZ for _, piece in pieces) and len(pieces) == 4
    for second, (start, _) in zip(quiet, pieces[1:], strict=False):
        assert abs(start / RATE_HZ - second) <= 0.2


@pytest.mark.parametrize("samples", [0, 1, 159, RATE_HZ * 30, RATE_HZ * 30 + 1])
def test_a_piece_at_the_edge(samples):
    waveform = np.ones(samples, np.float32)
    pieces = cut(waveform)
    assert sum(len(piece) for _, piece in pieces) == samples and len(pieces) == (samples > 0) + (samples > RATE_HZ * 30)


def test_batches_keep_their_budget_and_lose_nobody():
    rng = np.random.default_rng(1)
    pieces = [(i, 0, np.zeros(n, np.float32)) for i, n in enumerate(rng.integers(1, 30 * RATE_HZ, 50))]
    grouped = batches(pieces)
    assert sorted(i for group in grouped for i, _, _ in group) == list(range(50))
    assert all(len(group) * max(len(p) for _, _, p in group) <= BATCH_SECONDS * RATE_HZ for group in grouped)
    assert len(grouped) < 12 and batches([]) == []


def test_a_moved_segment_takes_its_words_along():
    segment = Segment("a", 1.0, 2.0, (Word("a", 1.0, 2.0, 0.5),))
    assert moved(segment, 30.0) == Segment("a", 31.0, 32.0, (Word("a", 31.0, 32.0, 0.5),))


def test_a_system_says_what_it_is(folder):
    system = Transcriber(str(folder))
    assert system.name == "mine" and Transcriber(str(folder), name="other").name == "other"
    assert system.parameters == sum(p.numel() for p in system.recognizer.parameters())
    assert system.size_bytes == sum(f.stat().st_size for f in folder.iterdir()) and system.language == "zh"
    assert system.fingerprint != Transcriber(str(folder), decoding="attention").fingerprint
    assert system([np.zeros(100, np.float32)])[0].language == "zh"


def test_a_search_that_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="'beam' is unknown: choose one of ctc_greedy, attention"):
        Transcriber(str(folder), decoding="beam")
    model = composed("finetune", *SMALL)["model"] | {"decoder": None}
    weights = build_recognizer(model, CHARACTERS.size).state_dict()
    ear = composed("finetune")["frontend"]
    save_bundle(tmp_path / "b", ear=ear, model=model, weights=weights, tokenizer=CHARACTERS, training={})
    with pytest.raises(InputError, match="without an attention decoder: use decoding=ctc_greedy"):
        Transcriber(str(tmp_path / "b"), decoding="attention")
