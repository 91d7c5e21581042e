"""Live captions: none for silence, the same however samples arrive, in place, and what is stable stays."""

import numpy as np
import pytest
import torch

from glmasr.decoding.streaming import Greedy
from glmasr.frontend.gain import lifted, lifted_for_detector
from glmasr.frontend.pieces import listen
from glmasr.frontend.vad import FRAME_SAMPLES
from glmasr.live import LiveTranscriber
from glmasr.speech import RATE_HZ, InputError
from glmasr.text.tokenizer import learn_characters
from glmasr.transcriber import Transcriber
from tests.small import random_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live") / "bundle"
    random_bundle(folder, learn_characters(["abcdefgh ijk"]))
    return str(folder)


@pytest.fixture(scope="module")
def transcriber(folder):
    return Transcriber(folder)


@pytest.fixture(scope="module")
def talk(spoken) -> np.ndarray:
    """Three sentences with pauses of 1.5 s, after 3 s of silence."""
    pause = np.zeros(RATE_HZ * 3 // 2, np.float32)
    parts = [part for sentence in spoken[:3] for part in (sentence.numpy(), pause)]
    return np.concatenate([pause, pause, *parts])


def heard(live: LiveTranscriber, waveform: np.ndarray, size: int):
    captions = [c for start in range(0, len(waveform), size) for c in live.hear(waveform[start : start + size])]
    return captions + live.finish()


def test_silence_and_noise_say_nothing(transcriber):
    rng = np.random.default_rng(0)
    for waveform in (np.zeros(10 * RATE_HZ), rng.normal(0, 0.05, 10 * RATE_HZ), np.zeros(0), np.ones(100)):
        assert heard(LiveTranscriber(transcriber), waveform.astype(np.float32), 1600) == []


@pytest.mark.parametrize("rescoring", [True, False])
def test_blocks_of_any_size_give_the_same_final_captions(transcriber, talk, rescoring):
    finals = []
    for size in (517, 1600, 50_000, len(talk)):
        captions = heard(LiveTranscriber(transcriber, rescoring=rescoring), talk, size)
        finals.append([caption for caption in captions if caption.is_final])
    assert len(finals[0]) == 3 and all(one == finals[0] for one in finals)


@pytest.mark.parametrize("gain", [True, {"slope": 1.0}])
def test_gain_is_that_of_the_transcriber_and_finds_quiet_speech(transcriber, talk, gain):
    """What is far too quiet for the voice detector, in blocks of any size; loud speech is heard as without."""
    lifting, whisper = transcriber.variant(gain=gain), (talk * 10**-3.25).astype(np.float32)
    assert heard(LiveTranscriber(transcriber), whisper, 1600) == []
    finals = []
    for size in (517, 1600, len(whisper)):
        captions = heard(LiveTranscriber(lifting), whisper, size)
        finals.append([caption for caption in captions if caption.is_final])
    assert len(finals[0]) == 3 and all(one == finals[0] for one in finals)
    loud = talk / np.abs(talk).max()
    texts = [[c.segment.text for c in heard(LiveTranscriber(one), loud, 1600)] for one in (transcriber, lifting)]
    assert texts[0] == texts[1] != []


def test_what_a_live_model_hears_is_lifted_as_in_a_file(transcriber, talk, monkeypatch):
    lifting, quiet, given = transcriber.variant(gain={"slope": 0.8}), (talk * 0.01).astype(np.float32), []
    monkeypatch.setattr(LiveTranscriber, "_final", lambda self, stretch, *_: given.append(stretch))
    heard(LiveTranscriber(lifting), quiet, 1600)
    probabilities = listen(lifted_for_detector(lifting.gain, [quiet])).speech
    whole = np.concatenate([*lifted(lifting.gain, [quiet], probabilities)])
    assert len(given) == 3 and np.abs(whole).max() > 3 * np.abs(quiet).max()
    for stretch in given:
        piece = np.concatenate(stretch.samples)
        np.testing.assert_array_equal(piece, whole[stretch.start_sample : stretch.start_sample + len(piece)])


def test_captions_stand_where_they_were_said(transcriber, talk, spoken):
    finals = [c.segment for c in heard(LiveTranscriber(transcriber), talk, 1600) if c.is_final]
    begin = 3.0
    for segment, sentence in zip(finals, spoken, strict=False):
        end = begin + len(sentence) / RATE_HZ
        assert begin - 0.6 < segment.start_seconds < segment.end_seconds < end + 1.0
        begin = end + 1.5


def test_what_is_stable_stays_and_partial_captions_come_in_between(transcriber, talk):
    stable, shown, partial = "", "", 0
    for caption in heard(LiveTranscriber(transcriber, chunk_seconds=0.16), talk, 800):
        if caption.is_final:
            stable = shown = ""
            continue
        assert caption.segment.text != shown
        assert len(caption.stable_text.split()) == len(caption.segment.text.split()) - 1
        partial, shown = partial + 1, caption.segment.text
        assert caption.segment.text.startswith(stable) and caption.stable_text.startswith(stable)
        stable = caption.stable_text
    assert partial > 10


@pytest.mark.parametrize(("chunk", "left"), [(4, None), (8, 2), (16, None), (32, 2)])
def test_live_hears_what_streaming_hears_of_each_stretch(folder, transcriber, talk, monkeypatch, chunk, left):
    config = {"_target_": "glmasr.transcriber.Streaming", "chunk_frames": chunk, "left_chunks": left}
    whole, scores, finals, stops = Transcriber(folder, decoding=config), [], [], []
    extended, end = Greedy.extended, LiveTranscriber._end
    # It ends in the middle of the third sentence, 100 samples into a frame of the voice detector.
    stream = talk[: 512 * ((len(talk) - 2 * RATE_HZ) // 512) + 100]

    def noting(self, log_probs):
        scores.append(torch.from_numpy(log_probs))
        return extended(self, log_probs)

    def ending(self):
        piece, start = (np.concatenate(self.stretch.samples), self.stretch.start_sample) if self.stretch else (None, 0)
        found = end(self)
        if piece is not None and scores:
            np.testing.assert_array_equal(piece, stream[start : start + len(piece)])
            stops.append(start + len(piece))
            heard = whole.encode([piece]).ctc_log_probs[0]
            torch.testing.assert_close(torch.cat(scores), heard, rtol=0, atol=1e-4)
            assert [c.segment.text for c in found] == [whole.transcribe_pieces([piece])[0][0].text]
            finals.extend(found)
        scores.clear()
        return found

    monkeypatch.setattr(Greedy, "extended", noting)
    monkeypatch.setattr(LiveTranscriber, "_end", ending)
    left_seconds = None if left is None else left * chunk * 0.04
    live = LiveTranscriber(transcriber, chunk * 0.04, left_seconds, rescoring=False)
    heard(live, stream, 3_000)
    assert len(finals) == 3 and stops[-1] == len(stream)


def test_what_would_spoil_a_stream_is_refused_and_it_goes_on(transcriber, talk):
    live, captions = LiveTranscriber(transcriber), []
    for start in range(0, len(talk), 1600):
        for bad, why in (
            (np.full(160, np.nan, np.float32), "NaN"),
            (np.zeros((160, 2), np.float32), "one channel"),
            (np.zeros(160, np.int16), "divide 16-bit ones by 32768"),
        ):
            with pytest.raises(InputError, match=why):
                live.hear(bad)
        captions += live.hear(talk[start : start + 1600])
    assert captions + live.finish() == heard(LiveTranscriber(transcriber), talk, 1600)


def test_streams_share_a_transcriber_and_nothing_else(transcriber, talk):
    one, other = LiveTranscriber(transcriber), LiveTranscriber(transcriber)
    backwards = talk[::-1].copy()
    mixed = ([], [])
    for start in range(0, len(talk), 1600):
        mixed[0].extend(one.hear(talk[start : start + 1600]))
        mixed[1].extend(other.hear(backwards[start : start + 1600]))
    assert mixed[0] + one.finish() == heard(LiveTranscriber(transcriber), talk, 1600)
    assert mixed[1] + other.finish() == heard(LiveTranscriber(transcriber), backwards, 1600)


def test_a_speech_without_end_is_cut(transcriber, spoken):
    endless = np.concatenate([sentence.numpy() for sentence in spoken] * 2)
    finals = [c for c in heard(LiveTranscriber(transcriber, longest_seconds=3.0), endless, 1600) if c.is_final]
    assert len(finals) >= len(endless) / RATE_HZ / 3.1 - 2
    assert all(c.segment.end_seconds - c.segment.start_seconds <= 3.6 for c in finals)


def tell(live: LiveTranscriber, monkeypatch, probabilities: list[float]) -> None:
    """Have the voice detector say these, frame by frame, and silence behind."""

    def detector(samples, state, last=False):
        stop = state + len(samples) // FRAME_SAMPLES
        return np.array([*probabilities, *[0.0] * stop][state:stop], np.float32), stop

    live.vad = 0
    monkeypatch.setattr("glmasr.live.speech_probabilities", detector)


@pytest.mark.parametrize(
    ("longest", "pieces"),
    [(30.0, [0.256 + 1.984 + 0.256 + 0.512 + 0.25]), (3.0, [0.256 + 1.984 + 0.224, 0.032 + 0.512 + 0.25])],
)
def test_a_long_stretch_ends_in_a_short_pause_and_the_final_pass_hears_little_of_it(
    transcriber, talk, monkeypatch, longest, pieces
):
    given, transcribe = [], transcriber.transcribe_pieces
    monkeypatch.setattr(transcriber, "transcribe_pieces", lambda some: given.extend(some) or transcribe(some))
    live = LiveTranscriber(transcriber, longest_seconds=longest)
    tell(live, monkeypatch, [0.0] * 20 + [1.0] * 62 + [0.0] * 8 + [1.0] * 16)
    heard(live, np.resize(talk[3 * RATE_HZ : 4 * RATE_HZ], 6 * RATE_HZ), 1600)
    assert [len(piece) / RATE_HZ for piece in given] == pytest.approx(pieces, abs=0.01)


@pytest.mark.parametrize(("frames", "probability", "expected"), [(2, 0.95, 0), (4, 0.7, 0), (4, 0.95, 1), (9, 0.7, 1)])
@pytest.mark.parametrize("rescoring", [True, False])
def test_a_click_is_no_speech(transcriber, talk, monkeypatch, frames, probability, expected, rescoring):
    """Short sounds count only if the voice detector, here one that says what it is told, is sure of them."""

    live = LiveTranscriber(transcriber, chunk_seconds=0.16, rescoring=rescoring)
    tell(live, monkeypatch, [0.0] * 20 + [probability] * frames)
    captions = heard(live, talk[3 * RATE_HZ : 6 * RATE_HZ], 1600)
    assert sum(caption.is_final for caption in captions) == expected and bool(captions) == bool(expected)


@pytest.mark.parametrize("chunk", [0.1, 0.0, -0.16, float("nan"), float("inf")])
def test_a_chunk_is_whole_frames(transcriber, chunk):
    with pytest.raises(InputError, match=r"choose 0\.16"):
        LiveTranscriber(transcriber, chunk_seconds=chunk)


@pytest.mark.parametrize("setting", [{"endpoint_seconds": 0.0}, {"longest_seconds": 0.1}])
def test_a_stretch_has_room_for_a_word(transcriber, setting):
    with pytest.raises(InputError, match="hold no word"):
        LiveTranscriber(transcriber, **setting)
