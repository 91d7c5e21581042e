"""Waveforms in, transcripts out: in order, whole, each as if it were alone."""

import os
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
import soundfile
import torch
import yaml

from glmasr import transcriber as room
from glmasr.build import build
from glmasr.bundle import build_recognizer, save_bundle
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.exporting.export import export
from glmasr.frontend.audio import read_audio, resample, write_audio
from glmasr.frontend.gain import Gain
from glmasr.frontend.logmel import HOP_SAMPLES
from glmasr.live import LiveTranscriber
from glmasr.model.subsampling import STRIDE
from glmasr.speech import FRAME_SECONDS, RATE_HZ, InputError, Segment, Word
from glmasr.text.tokenizer import learn_characters, learn_mixed
from glmasr.transcriber import BATCH_SECONDS, DECODINGS, PIECE_SECONDS, Transcriber, batches, moved, pools
from tests.small import REPOSITORY, SMALL, composed, random_bundle

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


def times_of(transcript):
    return [(w.text, w.start_seconds, w.end_seconds) for s in transcript.segments for w in s.words]


@pytest.mark.parametrize("decoding", DECODINGS)
def test_a_batch_hears_what_each_would_be_heard_as_alone(folder, speech, decoding):
    system = Transcriber(str(folder), decoding=decoding)
    waveforms = [speech[4], np.zeros(0, np.float32), *speech[:2], np.zeros(10, np.float32)]
    together, alone = system(waveforms), [system([waveform])[0] for waveform in waveforms]
    assert [t.text for t in together] == [t.text for t in alone]
    assert len({t.text for t in together}) > 2
    assert [t.duration_seconds for t in together] == [len(waveform) / RATE_HZ for waveform in waveforms]
    for one, other in zip(together, alone, strict=True):
        assert times_of(one) == times_of(other)
        assert times_of(one) or not one.text or decoding == "attention"
    assert together[1].text == "" and together[1].segments == ()


def test_nobody_speaks_in_silence_noise_and_next_to_nothing(folder):
    """A model of random weights always hears something, so that nothing but the gate keeps it quiet."""
    hiss = np.random.default_rng(0).standard_normal(5 * RATE_HZ).astype(np.float32)
    waveforms = [np.zeros(0, np.float32), np.zeros(160, np.float32), np.zeros(5 * RATE_HZ, np.float32), 0.1 * hiss]
    assert [t.text for t in Transcriber(str(folder))(waveforms)] == [""] * 4
    assert any(t.text for t in Transcriber(str(folder), vad=False)(waveforms)[2:])


def test_a_file_is_heard_as_its_waveform_is(folder, speech, tmp_path, monkeypatch):
    """At any rate, with pools and blocks far smaller than the file; progress adds up to its length."""
    monkeypatch.setattr(room, "BLOCK_SECONDS", 1.7)
    monkeypatch.setattr(room, "POOL_SECONDS", 5.0)
    system = Transcriber(str(folder))
    system.piece_seconds = 5.0
    whole = np.concatenate(speech * 2)
    write_audio(tmp_path / "whole.wav", whole)
    steps = []
    heard = system.transcribe_file(str(tmp_path / "whole.wav"), steps.append)
    assert len(heard.segments) > 3 and len(steps) > 2 and sum(steps) == pytest.approx(len(whole) / RATE_HZ)
    at_once = system([read_audio(str(tmp_path / "whole.wav"))])[0]
    assert heard.text == at_once.text and times_of(heard) == times_of(at_once)
    stereo = np.stack([resample(whole, RATE_HZ, 96_000)] * 2, axis=1)
    soundfile.write(tmp_path / "studio.wav", stereo, 96_000, subtype="FLOAT")
    studio = system.transcribe_file(str(tmp_path / "studio.wav"))
    assert studio.text == system([read_audio(str(tmp_path / "studio.wav"))])[0].text != ""
    soundfile.write(tmp_path / "call.wav", resample(whole, RATE_HZ, 8_000), 8_000)
    assert system.transcribe_file(str(tmp_path / "call.wav")).duration_seconds == pytest.approx(len(whole) / RATE_HZ)


def test_no_word_is_lost_or_doubled_where_pieces_meet(folder, speech):
    """A piece says what it says alone, and pieces lie end to end where no long pause is between."""
    system = Transcriber(str(folder))
    system.piece_seconds = 4.0
    whole = np.concatenate(speech * 2)
    places = room.pieces_of(room.listen([whole]), 4.0)
    alone = [system.transcribe_pieces([whole[a:b]])[0][0].text for a, b in places]
    assert len(places) > 4 and system([whole])[0].text == " ".join(filter(None, alone))
    assert [a for a, _ in places[1:]] == [b for _, b in places[:-1]]


def test_pieces_are_not_much_longer_than_what_was_trained_on():
    assert (
        room.piece_seconds_for({}) == PIECE_SECONDS == room.piece_seconds_for({"labelled_minutes": 60, "utterances": 9})
    )
    assert room.piece_seconds_for({"labelled_minutes": 10, "utterances": 100}) == 12.0
    assert room.piece_seconds_for({"labelled_minutes": 1, "utterances": 100}) == room.LEAST_PIECE_SECONDS


def test_streaming_is_the_search_under_the_chunk_mask(folder, speech):
    texts = {
        name: Transcriber(str(folder), decoding=decoding)([speech[0]])[0].text
        for name, decoding in {
            "name": "streaming",
            "config": {"_target_": "glmasr.transcriber.Streaming", "chunk_frames": 16},
            "short": {"_target_": "glmasr.transcriber.Streaming", "chunk_frames": 4, "left_chunks": 1},
            "endless": {"_target_": "glmasr.transcriber.Streaming", "search": "joint"},
        }.items()
    }
    assert texts["name"] == texts["config"] and len(set(texts.values())) == 3
    system = Transcriber(str(folder), decoding="streaming")
    features, lengths = system.ear(*one_batch(speech[0]), chunk_features=64)
    expected = system.recognizer(features, lengths, chunk_frames=16).ctc_log_probs
    assert torch.equal(system.encode([speech[0]]).ctc_log_probs, expected)
    with pytest.raises(InputError, match="no parameter 'chunk_frame'; did you mean 'chunk_frames'"):
        Transcriber(str(folder), decoding={"_target_": "glmasr.transcriber.Streaming", "chunk_frame": 4})
    with pytest.raises(InputError, match="a chunk has 1 frame or more"):
        Transcriber(str(folder), decoding={"_target_": "glmasr.transcriber.Streaming", "chunk_frames": 0})


def test_a_decoding_by_name_may_have_settings(folder, speech):
    """As the `systems` of a benchmark give them: built with the system, not before it."""
    system = {"_target_": "glmasr.transcriber.Transcriber", "bundle": str(folder)}
    for name, address, settings in (
        ("joint", "glmasr.decoding.search.Joint", {"ctc_weight": 0.5, "beam": 3}),
        ("streaming", "glmasr.transcriber.Streaming", {"chunk_frames": 4, "search": {"name": "ctc_beam", "beam": 2}}),
    ):
        named = build({**system, "decoding": {"name": name, **settings}})
        described = Transcriber(str(folder), decoding={"_target_": address, **settings})
        assert named.fingerprint == described.fingerprint
        assert named([speech[0]])[0].text == described([speech[0]])[0].text
    assert named.opened[1].beam == 2 and named.view["chunk_frames"] == 4
    with pytest.raises(InputError, match="has no parameter 'beams'; did you mean 'beam'"):
        build(system | {"decoding": {"name": "joint", "beams": 3}})
    for unknown in ({"name": "jiont"}, {"beam": 3}, "jiont"):
        with pytest.raises(InputError, match=r"is unknown: choose one of ctc_greedy, .*, streaming"):
            build(system | {"decoding": unknown})


def test_the_config_of_streaming_says_what_its_name_does():
    config = yaml.safe_load((REPOSITORY / "conf/decoding/streaming.yaml").read_text())
    assert config == {"_target_": "glmasr.transcriber.Streaming", **vars(room.Streaming())}


def one_batch(waveform):
    return torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])


@pytest.mark.parametrize("decoding", ["ctc_greedy", "attention", "joint"])
def test_a_language_given_is_the_only_one_named(tmp_path, speech, decoding):
    tokenizer = learn_mixed(["abc de", "北京"], size=8, minimum_count=1, tags=True, languages=["en", "zh", "yue"])
    random_bundle(tmp_path / "b", tokenizer)
    tags = [token for token in range(tokenizer.size) if tokenizer.language_of([token])]

    def named(language):
        """Which languages a bundle names that likes to."""
        system = Transcriber(str(tmp_path / "b"), decoding=decoding)
        with torch.no_grad():
            system.recognizer.ctc.bias[tags] += 60.0
            system.recognizer.decoder.project.bias[tags] += 60.0
        if language:
            room.only_language(system.recognizer, tokenizer, language)
        found = [ranked[0].tokens for ranked in system.search(system.encode(speech[:2]))]
        return {tokenizer.language_of([token]) for tokens in found for token in tokens} - {""}

    assert named(None)
    assert [named(language) for language in ("en", "zh", "yue-HK")] == [{"en"}, {"zh"}, {"yue"}]
    given = Transcriber(str(tmp_path / "b"), decoding=decoding, language="yue-HK")
    assert given.recognizer.ctc.bias.min() == room.NEVER == given.recognizer.decoder.project.bias.min()
    assert given.fingerprint != Transcriber(str(tmp_path / "b"), decoding=decoding).fingerprint
    with pytest.raises(InputError, match="knows no 'de': choose one of en, yue, zh"):
        Transcriber(str(tmp_path / "b"), language="de")


@pytest.mark.parametrize("decoding", ["ctc_greedy", "joint", "streaming"])
def test_a_variant_shares_the_weights_and_is_what_opening_it_so_would_be(tmp_path, speech, decoding, monkeypatch):
    tokenizer = learn_mixed(["abc de", "北京"], size=8, minimum_count=1, tags=True, languages=["en", "zh"])
    random_bundle(tmp_path / "b", tokenizer)
    system = Transcriber(str(tmp_path / "b"), decoding=decoding, language="zh")
    choices = [{"language": "en"}, {"script": "traditional", "numerals": True}, {"vad": False}, {"gain": True}, {}]
    opened = [Transcriber(str(tmp_path / "b"), decoding=decoding, **{"language": "zh", **one}) for one in choices]
    monkeypatch.setattr("glmasr.bundle.open_bundle", None)
    monkeypatch.setattr(room, "open_search", None)
    before, biases = system(speech[:2]), {id(system.recognizer.ctc.bias)}
    for choice, other in zip(choices, opened, strict=True):
        variant = system.variant(**choice)
        assert variant.fingerprint == other.fingerprint and variant.language == other.language
        assert variant([0.001 * speech[0], speech[1]]) == other([0.001 * speech[0], speech[1]])
        for (name, own), shared in zip(
            variant.recognizer.named_parameters(), system.recognizer.parameters(), strict=True
        ):
            assert own is shared or name in ("ctc.bias", "decoder.project.bias")
        assert getattr(variant.search, "recognizer", variant.recognizer) is variant.recognizer
        biases.add(id(variant.recognizer.ctc.bias))
    assert system(speech[:2]) == before and len(biases) > 1 and len({one.fingerprint for one in opened}) == 5
    both = system.variant(gain=True).variant(numerals=True)
    assert both.gain == opened[3].gain == Gain(slope=0.0) and both.variant(gain=False).gain is None
    with pytest.raises(InputError, match="knows no 'de'"):
        system.variant(language="de")


def test_gain_finds_speech_that_the_voice_detector_misses_and_leaves_loud_speech_alone(folder, speech, tmp_path):
    system = Transcriber(str(folder))
    lifting = system.variant(gain=True)
    loud, quiet = [waveform / np.abs(waveform).max() for waveform in speech[:3]], []
    for waveform in loud:
        quiet.append(np.concatenate([waveform, np.zeros(RATE_HZ, np.float32)]) * np.float32(10**-3.25))
    assert [t.text for t in lifting(loud)] == [t.text for t in system(loud)]
    assert [t.text for t in system(quiet)] == ["", "", ""] and all(t.text for t in lifting(quiet))
    write_audio(tmp_path / "quiet.wav", quiet[0])
    from_file = lifting.transcribe_file(str(tmp_path / "quiet.wav"))
    assert from_file == lifting([read_audio(str(tmp_path / "quiet.wav"))])[0]
    given = Transcriber(str(folder), gain={"max_gain_db": 0.0})
    assert given.gain.max_gain_db == 0.0 and given.fingerprint not in (system.fingerprint, lifting.fingerprint)
    with pytest.raises(InputError, match="gain has no parameter 'max_gain'; did you mean 'max_gain_db'"):
        system.variant(gain={"max_gain": 3.0})


def test_gain_without_the_gate_lifts_speech_and_no_noise(folder, speech):
    """All is heard without the voice detector, which still says what may be lifted."""
    hiss = np.random.default_rng(0).standard_normal(2 * RATE_HZ).astype(np.float32) * 0.001
    heard, given = Transcriber(str(folder), vad=False, gain={"slope": 1.0}), []
    quiet = speech[0] * np.float32(0.01)
    heard.transcribe_pieces = lambda pieces: given.extend(pieces) or [(Segment("", 0.0, 0.0), "")] * len(pieces)
    heard([hiss, quiet])
    assert sorted(map(len, given)) == sorted([len(hiss), len(quiet)])
    by_length = {len(piece): piece for piece in given}
    np.testing.assert_array_equal(by_length[len(hiss)], hiss)
    assert np.abs(by_length[len(quiet)]).max() > 4 * np.abs(quiet).max()
    given.clear()
    heard.gain = Gain(slope=0.0)
    heard([quiet])
    np.testing.assert_array_equal(given[0], quiet)


def test_a_bundle_without_tags_takes_any_language(folder):
    assert Transcriber(str(folder), language="yue")([np.zeros(100, np.float32)])[0].language == "yue"


def test_script_and_numerals_are_choices(folder, speech):
    system = Transcriber(str(folder), script="traditional", numerals=True)
    made = system.transcript(9.0, [(Segment("二十块", 0.0, 1.0), "zh"), (Segment("mp3", 2.0, 3.0), "")])
    assert made.text == "20塊 mp3"
    with pytest.raises(InputError, match="script 'cursive' is unknown"):
        Transcriber(str(folder), script="cursive")


def test_a_text_too_long_for_its_frames_goes_without_times():
    log_probs = torch.randn(3, CHARACTERS.size).log_softmax(-1)
    assert room.timed(Hypothesis((3, 4, 5), 0.0), log_probs).starts
    for tokens in ((3, 4, 5, 6), (3, 3, 4), ()):
        assert room.timed(Hypothesis(tokens, 0.0, (1,), (2,), (0.5,)), log_probs) == Hypothesis(tokens, 0.0)


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
    ends = [(w.start_seconds / frame, w.end_seconds / frame) for w in found.words]
    named = [(0, 3), (6, 7), (10, 11), (12, 12.5)]  # the last frame is cut by the end
    assert all(a <= c + 1e-6 and d <= b + 1e-6 for (a, b), (c, d) in zip(ends, named, strict=True))
    assert ends[0][0] == 0 and ends[-1][1] == pytest.approx(12.5)


def test_a_search_without_times_gives_the_whole_piece(folder):
    found = Transcriber(str(folder)).segment(Hypothesis(tuple(CHARACTERS.encode("ab")), -1.0), 2.5)
    assert found == Segment("ab", 0.0, 2.5, ())


def test_batches_keep_their_budget_and_lose_nobody():
    rng = np.random.default_rng(1)
    pieces = [(i, 0, np.zeros(n, np.float32)) for i, n in enumerate(rng.integers(1, 30 * RATE_HZ, 50))]
    grouped = batches(pieces)
    assert sorted(i for group in grouped for i, _, _ in group) == list(range(50))
    assert all(len(group) * max(len(p) for _, _, p in group) <= BATCH_SECONDS * RATE_HZ for group in grouped)
    heard, padded = sum(len(p) for _, _, p in pieces), sum(len(group) * len(group[0][2]) for group in grouped)
    assert padded < 1.15 * heard and len(grouped) < 20 and batches([]) == []


def test_pools_keep_their_order_and_lose_nobody(monkeypatch):
    monkeypatch.setattr(room, "POOL_SECONDS", 2.0)
    pieces = [(0, float(i), np.zeros(RATE_HZ * 7 // 10, np.float32)) for i in range(7)]
    found = list(pools(iter(pieces)))
    assert [len(pool) for pool in found] == [3, 3, 1] and [piece[1] for pool in found for piece in pool] == [*range(7)]
    assert list(pools([])) == []


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
    with pytest.raises(InputError, match=r"'beam' is unknown: choose one of ctc_greedy, .*, streaming"):
        Transcriber(str(folder), decoding="beam")
    model = composed("finetune", *SMALL)["model"] | {"decoder": None}
    weights = build_recognizer(model, CHARACTERS.size).state_dict()
    ear = composed("finetune")["frontend"]
    save_bundle(tmp_path / "b", ear=ear, model=model, weights=weights, tokenizer=CHARACTERS, training={})
    with pytest.raises(InputError, match="needs an attention decoder"):
        Transcriber(str(tmp_path / "b"), decoding="attention")


@pytest.fixture(scope="module")
def exported(speech, tmp_path_factory):
    """A bundle that names languages, and the same for ONNX Runtime."""
    home = tmp_path_factory.mktemp("exported")
    tokenizer = learn_mixed(["abc de", "北京"], size=8, minimum_count=1, tags=True, languages=["en", "zh"])
    random_bundle(home / "bundle", tokenizer, labelled_minutes=1, utterances=20, language="zh")
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are no numbers while a graph is traced
    export(home / "bundle", "onnx", home / "onnx", streaming=True, say=lambda text: None)
    jaxtyping.config.update("jaxtyping_disable", False)
    return home


STREAMING = "glmasr.transcriber.Streaming"


@pytest.mark.parametrize("language", [None, "en"])
@pytest.mark.parametrize("decoding", ["ctc_greedy", "ctc_beam", "streaming", {"_target_": STREAMING, "left_chunks": 1}])
def test_what_was_exported_writes_what_the_bundle_writes(exported, speech, decoding, language):
    options = {"decoding": decoding, "language": language, "vad": False}
    bundle, onnx = (Transcriber(str(exported / name), **options) for name in ("bundle", "onnx"))
    waveforms = [*speech[:3], np.zeros(0, np.float32), speech[3][:50]]
    expected, found = bundle(waveforms), onnx(waveforms)
    assert [one.text for one in found] == [one.text for one in expected] and len({one.text for one in found}) > 2
    assert [one.language for one in found] == [one.language for one in expected]
    assert [times_of(one) for one in found] == [times_of(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one.segments, other.segments, strict=True):
            assert [w.confidence for w in a.words] == pytest.approx([w.confidence for w in b.words], abs=1e-3)
    assert (onnx.parameters, onnx.piece_seconds) == (bundle.parameters, bundle.piece_seconds)
    assert onnx.fingerprint != bundle.fingerprint and onnx.size_bytes > 0


def test_a_variant_of_what_was_exported_speaks_its_language(exported, speech):
    english = Transcriber(str(exported / "onnx"), language="en", vad=False)
    chinese = english.variant(language="zh")
    assert {one.language for one in chinese(speech[:2])} == {"zh"}
    assert {one.language for one in english(speech[:2])} == {"en"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"decoding": "joint"}, "decoding=joint needs the bundle itself"),
        ({"device": "cuda"}, "runs on the CPU"),
        ({"language": "fr"}, "knows no 'fr': choose one of en, zh"),
    ],
)
def test_what_was_exported_says_what_it_cannot_do(exported, options, message):
    with pytest.raises(InputError, match=message):
        Transcriber(str(exported / "onnx"), **options)


def test_an_export_without_the_streaming_graph_says_how_to_get_it(exported):
    (exported / "onnx" / "streaming.onnx").rename(exported / "away")
    try:
        with pytest.raises(InputError, match="whole recordings only: export the bundle again with --streaming"):
            Transcriber(str(exported / "onnx"), decoding="streaming")
        with pytest.raises(InputError, match="whole recordings only"):
            LiveTranscriber(Transcriber(str(exported / "onnx")))
        assert not Transcriber(str(exported / "onnx")).can_stream
    finally:
        (exported / "away").rename(exported / "onnx" / "streaming.onnx")


@pytest.mark.parametrize("rescoring", [True, False])
@pytest.mark.parametrize("left_seconds", [None, 0.64])
def test_live_captions_of_an_export_are_those_of_the_bundle(exported, speech, left_seconds, rescoring):
    pause = np.zeros(RATE_HZ, np.float32)
    talk = np.concatenate([part for sentence in speech[:3] for part in (sentence, pause)])

    def heard(name):
        system = Transcriber(str(exported / name), language="en")
        live = LiveTranscriber(system, 0.32, left_seconds, rescoring=rescoring)
        blocks = [talk[start : start + 1000] for start in range(0, len(talk), 1000)]
        captions = [caption for block in blocks for caption in live.hear(block)] + live.finish()
        return [(one.segment.text, one.is_final, one.stable_text, one.language) for one in captions]

    expected = heard("bundle")
    assert len(expected) > 10 and sum(is_final for _, is_final, _, _ in expected) >= 3
    assert heard("onnx") == expected


def test_a_stream_of_an_export_names_no_other_language(exported, speech):
    rows = {}
    for name in ("bundle", "onnx"):
        system = Transcriber(str(exported / name), language="en")
        rows[name] = np.exp(system.stream(8, 1).hear(speech[0], last=True))
    silenced = system.silenced
    assert len(silenced) == 1 and (rows["onnx"][:, silenced] == 0).all()
    assert np.abs(rows["onnx"] - rows["bundle"]).max() < 1e-3


WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(("torch", "torchaudio"))  # who imports either fails
from glmasr.cli import main
main()
"""


@pytest.mark.parametrize("options", [["--stream"], ["decoding=streaming"]], ids=["live", "whole"])
def test_an_export_streams_without_torch(exported, speech, tmp_path, options):
    write_audio(str(tmp_path / "talk.wav"), np.concatenate(speech[:2]))

    def printed(name, code):
        words = ["transcribe", str(tmp_path / "talk.wav"), *options, "--bundle", str(exported / name)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, check=False
        )

    found = printed("onnx", WITHOUT_TORCH)
    assert found.returncode == 0, found.stderr
    assert found.stdout == printed("bundle", "from glmasr.cli import main; main()").stdout and found.stdout.strip()
    assert printed("bundle", WITHOUT_TORCH).returncode != 0


def test_frames_last_as_long_as_the_ear_and_the_stem_make_them():
    assert pytest.approx(STRIDE * HOP_SAMPLES / RATE_HZ) == FRAME_SECONDS
