"""Other people's systems: transformers' own texts, a server that is slow, busy or mad, files of hypotheses, a limit."""

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
import torch

from glmasr.build import build
from glmasr.evaluation.benchmark import TestSet, evaluate
from glmasr.evaluation.systems import Limited, OpenAIEndpoint, Recorded, TransformersASR
from glmasr.speech import RATE_HZ, InputError, Segment, System, Transcript, Utterance


@pytest.fixture(scope="module")
def clips(spoken) -> list[np.ndarray]:
    return [waveform.numpy() for waveform in spoken[:2]]


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory) -> str:
    """A folder with a CTC model of 27,486 random weights and its processor."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("models") / "wav2vec2-tiny"
    folder.mkdir()
    symbols = ["<pad>", "<unk>", *"|abcdefghijklmnopqrstuvwxyz'"]
    (folder / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    config = Wav2Vec2Config(
        **{"vocab_size": len(symbols), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 64, "conv_dim": (16,) * 7, "feat_extract_norm": "layer", "conv_bias": True},
        **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "pad_token_id": 0},
    )
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(config)
    torch.nn.init.normal_(model.lm_head.weight)  # or it says nothing
    model.save_pretrained(folder)
    return str(folder)


def asked_directly(folder: str, clip: np.ndarray) -> str:
    """What transformers' model and processor make of a clip."""
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

    processor = Wav2Vec2Processor.from_pretrained(folder)
    inputs = processor(clip, sampling_rate=RATE_HZ, return_tensors="pt")
    with torch.no_grad():
        scores = Wav2Vec2ForCTC.from_pretrained(folder).eval()(**inputs).logits
    return processor.batch_decode(scores.argmax(-1))[0].strip()


def test_a_model_of_transformers_says_what_transformers_has_it_say(wav2vec2, clips):
    system: System = TransformersASR(wav2vec2, batch=2)
    heard = system([clips[0], clips[0][:0], clips[1]])
    wanted = [asked_directly(wav2vec2, clips[0]), "", asked_directly(wav2vec2, clips[1])]
    assert [transcript.text for transcript in heard] == wanted and len(set(wanted)) == 3 and len(wanted[0]) > 20
    assert [transcript.duration_seconds for transcript in heard] == [
        len(clips[0]) / RATE_HZ,
        0,
        len(clips[1]) / RATE_HZ,
    ]
    assert (system.name, system.parameters, system.size_bytes) == ("wav2vec2-tiny", 27_486, 4 * 27_486)


def test_other_weights_are_told_by_the_fingerprint(wav2vec2, tmp_path):
    import shutil

    shutil.copytree(wav2vec2, tmp_path / "m")
    first = TransformersASR(str(tmp_path / "m")).fingerprint
    assert TransformersASR(str(tmp_path / "m")).fingerprint == first
    (tmp_path / "m" / "model.safetensors").touch()
    assert TransformersASR(str(tmp_path / "m")).fingerprint != first


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    """A folder with a Whisper of two languages and 62,432 random weights."""
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperTokenizer
    from transformers import WhisperForConditionalGeneration as Model
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder = tmp_path_factory.mktemp("models") / "whisper-tiny"
    end, start = "<|endoftext|>", "<|startoftranscript|>"
    special = [start, "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>"]
    vocabulary = {symbol: i for i, symbol in enumerate([*bytes_to_unicode().values(), end])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[], pad_token=end)
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(1501)])
    number = tokenizer.convert_tokens_to_ids
    ends = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256, "decoder_start_token_id": number(start)}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_mel_bins": 80, "max_target_positions": 64}
    narrow = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    torch.manual_seed(0)
    none = {"suppress_tokens": None, "begin_suppress_tokens": None}
    model = Model(WhisperConfig(vocab_size=len(tokenizer), **sizes, **narrow, **ends, **none))
    torch.nn.init.normal_(model.model.decoder.embed_tokens.weight)
    model.generation_config = GenerationConfig(
        **ends,
        max_length=24,
        is_multilingual=True,
        lang_to_id={"<|en|>": number("<|en|>"), "<|zh|>": number("<|zh|>")},
        task_to_id={"transcribe": number("<|transcribe|>"), "translate": number("<|translate|>")},
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        max_initial_timestamp_index=50,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return str(folder)


def test_a_long_recording_in_company_changes_nothing_for_the_short_ones(whisper, clips):
    """Whisper needs timestamps for more than 30 s, and with them says other things of less."""
    long = np.tile(clips[0], 20)
    system = TransformersASR(whisper, language="en", batch=2)
    alone = [system([waveform])[0].text for waveform in (clips[0], long, clips[1])]
    asked, pipeline = [], system.pipeline
    spy = lambda inputs, **how: asked.append((len(inputs), how)) or pipeline(inputs, **how)  # noqa: E731
    spy.feature_extractor = pipeline.feature_extractor
    system.pipeline = spy
    assert [transcript.text for transcript in system([clips[0], long, clips[1]])] == alone
    told = {"num_beams": 1, "do_sample": False, "language": "en"}
    together, one_by_one = {"batch_size": 2}, {"return_timestamps": True}
    assert asked == [(2, {"generate_kwargs": told, **together}), (1, {"generate_kwargs": told, **one_by_one})]
    assert alone[1]
    assert system.parameters == 62_432


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_be_had_is_one_sentence(wav2vec2, tmp_path, monkeypatch):
    from transformers import AutoFeatureExtractor, AutoTokenizer, BertConfig, Wav2Vec2ForCTC, Wav2Vec2Model

    with pytest.raises(InputError, match=r"'\./nowhere' cannot be had .*give a folder or a hub name"):
        TransformersASR("./nowhere")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is a bert, which transcribes no speech"):
        TransformersASR(str(tmp_path / "bert"))
    with pytest.raises(InputError, match=r"cannot be had .*device that this machine has"):
        TransformersASR(wav2vec2, device="xpu")
    headless = tmp_path / "headless"
    Wav2Vec2Model(Wav2Vec2ForCTC.from_pretrained(wav2vec2).config).save_pretrained(headless)
    AutoTokenizer.from_pretrained(wav2vec2).save_pretrained(headless)
    AutoFeatureExtractor.from_pretrained(wav2vec2).save_pretrained(headless)
    with pytest.raises(InputError, match=r"not trained to recognize speech \(it lacks lm_head"):
        TransformersASR(str(headless))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        TransformersASR(wav2vec2)


Answer = tuple[int, str | dict]


class Server:
    """A loopback server whose `answer` says (status, body) to the fields of each request, kept in `asked`."""

    def __init__(self, answer: Callable[[dict[str, bytes]], Answer]):
        self.asked: list[dict[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fields = parts_of(body, self.headers["Content-Type"])
                outer.asked.append(fields | {"path": self.path.encode()})
                outer.headers.append(dict(self.headers))
                status, said = answer(fields)
                content = (said if isinstance(said, str) else json.dumps(said)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_):  # a client that gave up
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def parts_of(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a multipart form by name."""
    found = {}
    for part in body.split(b"--" + content_type.split("boundary=")[1].encode())[1:-1]:
        head, _, content = part.strip(b"\r\n").partition(b"\r\n\r\n")
        found[head.split(b'name="')[1].split(b'"')[0].decode()] = content
    return found


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    started: list[Server] = []

    def start(answer: Callable[[dict[str, bytes]], Answer]) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield start
    for server in started:
        server.server.shutdown()
        server.server.server_close()


def in_turn(*answers: Answer) -> Callable[[dict[str, bytes]], Answer]:
    waiting = iter(answers)
    return lambda _: next(waiting)


def test_an_endpoint_is_sent_the_speech_and_its_answer_is_read(serve, clips, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    segments = [{"start": 0.0, "end": 99.0, "text": " Now you will say"}]
    server = serve(lambda _: (200, {"text": " Now you will say ", "language": "english", "segments": segments}))
    system: System = OpenAIEndpoint(f"{server.url}/v1/", "org/whisper-1", key_variable="MY_KEY", language="en")
    loud = clips[0] * 20
    heard = system([loud, loud[:0]])
    seconds = len(loud) / RATE_HZ
    said = Transcript("Now you will say", seconds, (Segment("Now you will say", 0.0, seconds),), "english")
    assert heard == [said, Transcript("", 0.0)]
    assert (system.name, system.parameters, system.size_bytes, len(server.asked)) == ("whisper-1", 0, 0, 1)
    assert "s3cret" not in system.fingerprint and server.headers[0]["Authorization"] == "Bearer s3cret"
    asked = server.asked[0]
    audio, rate = soundfile.read(io.BytesIO(asked.pop("file")), dtype="float32")
    assert rate == RATE_HZ and np.abs(loud).max() > 1
    np.testing.assert_allclose(audio, loud / np.abs(loud).max(), atol=1e-4)  # turned down, not clipped
    assert {name: value.decode() for name, value in asked.items()} == {
        **{"path": "/v1/audio/transcriptions", "model": "org/whisper-1", "language": "en"},
        **{"response_format": "verbose_json", "temperature": "0"},
    }


def test_a_model_that_knows_plain_json_alone_is_asked_for_it(serve, clips, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = serve(lambda asked: (200, {"text": "yes"}) if asked["response_format"] == b"json" else (400, "no verbose"))
    system = OpenAIEndpoint(server.url, "m")
    assert [transcript.text for transcript in system(clips)] == ["yes", "yes"]
    assert [asked["response_format"] for asked in server.asked] == [b"verbose_json", b"json", b"json"]
    assert "Authorization" not in server.headers[0]


def test_a_busy_server_is_asked_again(serve, clips):
    server = serve(in_turn((429, "slow down"), (500, "oh"), (503, "oh"), (200, {"text": "at last"})))
    start = time.perf_counter()
    [heard] = OpenAIEndpoint(server.url, "m", pause_seconds=0.02)(clips[:1])
    assert heard.text == "at last" and time.perf_counter() - start > 0.02 + 0.04 + 0.08


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ([(500, "boom")] * 4, RuntimeError, "HTTP 500: boom"),
        ([(418, "I am  a\nteapot")], RuntimeError, "HTTP 418: I am a teapot"),
        ([(200, "<html>hello")], ValueError, "no transcription in JSON .*<html>hello"),
        ([(200, {"error": "x"})], ValueError, "no transcription"),
        ([(200, ["x"])], ValueError, "no transcription"),
        ([(401, "")], InputError, "refuses 'm' .*key is not accepted.*set OPENAI_API_KEY"),
        ([(404, "")], InputError, "no such address or model"),
    ],
)
def test_what_a_server_gets_wrong_is_said(serve, clips, answers, error, message):
    server = serve(in_turn(*answers))
    with pytest.raises(error, match=message):
        OpenAIEndpoint(server.url, "m", pause_seconds=0.001)(clips[:1])
    assert len(server.asked) == len(answers)


def test_a_server_that_is_not_there_or_says_nothing_costs_a_hypothesis_and_no_more(serve, clips):
    import httpx

    released, waited = threading.Event(), []

    def slow(asked: dict[str, bytes]) -> Answer:
        if soundfile.info(io.BytesIO(asked["file"])).frames == len(clips[1]):
            waited.append(1)
            released.wait(5)
        return 200, {"text": "fine"}

    server = serve(slow)
    utterances = [Utterance(str(i), flac(clip), len(clip) / RATE_HZ, text="fine") for i, clip in enumerate(clips)]
    system = OpenAIEndpoint(server.url, "m", timeout_seconds=0.3)
    heard = {one.id: one for one in evaluate_in_memory(system, utterances)}
    released.set()
    assert len(waited) == 3  # to warm up, in company and alone: one that was silent once is not asked again
    assert heard["0"].hypothesis == "fine" and not heard["0"].failure
    assert heard["1"].hypothesis == "" and heard["1"].failure.startswith("ReadTimeout")
    with pytest.raises(httpx.ConnectError):
        OpenAIEndpoint("http://127.0.0.1:1", "m", pause_seconds=0.001)(clips[:1])
    with pytest.raises(InputError, match="begins with http"):
        OpenAIEndpoint("127.0.0.1:8000", "m")


def flac(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, RATE_HZ, format="FLAC")
    return file.getvalue()


def evaluate_in_memory(system: System, utterances: list[Utterance]):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return evaluate(system, TestSet("few", utterances), folder).heard


def write_rows(path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_recorded_hypotheses_are_found_by_id_or_by_path_and_offset(tmp_path):
    path = write_rows(
        tmp_path / "nemo.jsonl",
        {"id": "a/1", "text": "the reference", "pred_text": "by id", "duration": 1.0},
        {"audio_filepath": "b/1.wav", "text": "the reference", "pred_text": "by path"},
        {"audio_filepath": "b/1.wav", "offset": 2.5, "pred_text": "by offset"},
        {"audio_filepath": "/data/c.wav", "hypothesis": "by whole path"},
        {"audio_filepath": "sample_7", "text": "by text"},
        {"id": "null", "pred_text": None},
    )
    system: System = Recorded(path)
    recall = Recorded(path).recall
    found = [
        Utterance("a/1", "/there/x.wav", 1.0, language="en"),
        Utterance("u2", "/there/b/1.wav", 1.0),
        Utterance("u3", "/there/b/1.wav", 1.0, offset_seconds=2.5),
        Utterance("u4", "/data/c.wav", 1.0),
        Utterance("sample_7", b"bytes", 1.0),
    ]
    assert [transcript.text for transcript in recall(found)] == [
        "by id",
        "by path",
        "by offset",
        "by whole path",
        "by text",
    ]
    assert recall(found[:1])[0] == Transcript("by id", 1.0, language="en")
    for stranger in [
        Utterance("a/2", "/there/a/1.wav", 1.0),  # not b/1.wav
        Utterance("u5", "/there/b/1.wav", 1.0, offset_seconds=4.0),
        Utterance("null", b"bytes", 1.0),
    ]:
        with pytest.raises(KeyError, match=stranger.id):
            recall([found[0], stranger])
    assert (system.name, system.parameters, system.size_bytes) == ("nemo", 0, 0)
    with pytest.raises(InputError, match="known utterances"):
        system([np.zeros(8, np.float32)])
    before = system.fingerprint
    write_rows(tmp_path / "nemo.jsonl", {"id": "a", "pred_text": "x"})
    assert Recorded(path).fingerprint != before and Recorded(path, "other", "snr=5").condition == "snr=5"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .*is no hypothesis"),
        ('{"id": "b"}', "line 2"),
        ('{"pred_text": "x"}', "line 2 .*give it an id"),
        ("3", "line 2"),
        ('{"id": "a", "pred_text": "y"}', "two hypotheses for 'a'"),
    ],
)
def test_a_file_that_is_not_of_hypotheses_is_one_sentence(tmp_path, line, message):
    (tmp_path / "h.jsonl").write_text('{"id": "a", "pred_text": "x"}\n' + line)
    with pytest.raises(InputError, match=message):
        Recorded(str(tmp_path / "h.jsonl"))
    with pytest.raises(InputError, match="cannot be read"):
        Recorded(str(tmp_path / "none.jsonl"))


class Moody:
    """A system that hangs on what is louder than 0.5, raises on silence, and says "fine" to all else."""

    name, parameters, size_bytes, fingerprint = "moody", 7, 9, "of Monday"

    def __init__(self) -> None:
        self.released = threading.Event()

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        if max(np.abs(waveform).max() for waveform in waveforms) > 0.5:
            self.released.wait(10)
        if not all(np.abs(waveform).any() for waveform in waveforms):
            raise TimeoutError("its own")
        return [Transcript("fine", 1.0) for _ in waveforms]


def test_a_system_that_hangs_on_a_file_does_not_hold_up_the_others(clips):
    moody = Moody()
    system = Limited(moody, seconds=0.1)
    assert (system.name, system.parameters, system.size_bytes, system.fingerprint) == ("moody", 7, 9, "of Monday")
    levels = {"quiet": 0.2, "loud": 0.9, "still quiet": 0.3, "silent": 0.0}
    utterances = [
        Utterance(name, flac(clips[0] / np.abs(clips[0]).max() * level), 1.0, text="fine")
        for name, level in levels.items()
    ]
    heard = {one.id: one for one in evaluate_in_memory(system, utterances)}
    moody.released.set()
    assert [heard[name].hypothesis for name in levels] == ["fine", "", "fine", ""]
    assert heard["loud"].failure == "TimeoutError: no answer within 0.1 s"
    assert heard["silent"].failure == "TimeoutError: its own"
    assert 1 <= system.left_behind <= 3


def test_a_config_builds_each_of_them(tmp_path):
    room = "glmasr.evaluation.systems"
    rows = write_rows(tmp_path / "rows.jsonl", {"id": "a", "pred_text": "b"})
    endpoint = {"_target_": f"{room}.OpenAIEndpoint", "url": "http://127.0.0.1:1", "model": "m", "name": "theirs"}
    limited = build({"_target_": f"{room}.Limited", "seconds": 5, "system": endpoint})
    assert limited.name == "theirs" and isinstance(limited.system, OpenAIEndpoint)
    assert build({"_target_": f"{room}.Recorded", "path": rows, "name": "file"}).name == "file"
