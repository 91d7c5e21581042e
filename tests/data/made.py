"""Tiny made copies of published corpora, as their owners lay them out: where to point `data=…`, what must come out."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile

from glmasr.data.catalog import write_catalog
from glmasr.data.export import to_shards
from glmasr.frontend.audio import encode_audio, write_audio
from glmasr.speech import Utterance


@dataclass(frozen=True)
class Made:
    """Settings of `data.` that find the copy; each utterance's id with its text, language, speaker and split."""

    settings: dict[str, Any]
    expected: dict[str, tuple[str | None, str, str, str]]
    stretches: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Offset and duration of some of them."""


def ramp(seconds: float = 0.5) -> np.ndarray:
    """A waveform that no two seconds of which are alike."""
    samples = np.arange(round(seconds * 16_000))
    return (np.sin(samples * (1 + samples / 1e5) * 0.05) * 0.3).astype(np.float32)


def record(path: Path, seconds: float = 0.5, channels: int = 1) -> Path:
    """A recording in any format that a corpus of ours comes in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".wav", ".flac") and channels == 1:
        write_audio(path, ramp(seconds))
    else:
        form = {".mp3": "MP3", ".opus": "OGG", ".flac": "FLAC"}[path.suffix]
        subtype = "OPUS" if path.suffix == ".opus" else None
        soundfile.write(path, np.tile(ramp(seconds)[:, None], (1, channels)), 16_000, format=form, subtype=subtype)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def librispeech(home: Path) -> Made:
    for part, speaker in (("train-clean-100", 19), ("dev-other", 84), ("test-clean", 121)):
        chapter = home / part / str(speaker) / "198"
        record(chapter / f"{speaker}-198-0000.flac")
        write(chapter / f"{speaker}-198.trans.txt", f"{speaker}-198-0000 HELLO  THERE\n")
    write(home / "SPEAKERS.TXT", "; a table\n")
    expected = {"19": "train", "84": "dev", "121": "test"}
    return Made(
        {"path": str(home)},
        {f"{who}-198-0000": ("HELLO THERE", "en", who, split) for who, split in expected.items()},
    )


def libri_light(home: Path) -> Made:
    chapter = home / "small" / "100" / "sea_fairies_0812_librivox_64kb_mp3" / "01_baum_sea_fairies_64kb"
    record(chapter.with_suffix(".flac"), 6.0)
    about = {"speaker": "100", "snr": 9.8, "voice_activity": [[0.5, 1.25], [1.5, 2.0], [2.25, 5.5]]}
    write(chapter.with_suffix(".json"), json.dumps(about))
    name = str(chapter.relative_to(home))
    stretches = {f"{name}@0.50": (0.5, 1.5), f"{name}@2.25": (2.25, 2.0), f"{name}@4.25": (4.25, 1.25)}
    expected = {one: (None, "en", "100", "train") for one in stretches}
    return Made({"path": str(home), "max_seconds": 2.0, "dev_share": 0.0}, expected, stretches)


def gigaspeech(home: Path) -> Made:
    record(home / "audio" / "podcast" / "P0000" / "POD0000000001.opus", 3.0)
    segment = {"sid": "POD0000000001_S0000008", "speaker": "N/A", "begin_time": 0.5, "end_time": 1.25}
    said = "AS THEY'RE LEAVING <COMMA> CAN KASH PULL ZAHRA ASIDE REALLY QUICKLY <QUESTIONMARK>"
    segments = [
        {**segment, "text_tn": said, "subsets": ["{XL}", "{L}", "{M}"]},
        {**segment, "sid": "S9", "text_tn": "NOT WANTED", "subsets": ["{XL}"]},
        {**segment, "sid": "S10", "text_tn": "FINE <PERIOD>", "subsets": ["{DEV}"], "begin_time": 2.0, "end_time": 9.0},
        {**segment, "sid": "S11", "text_tn": "<MUSIC>", "subsets": ["{TEST}"]},
    ]
    path = "audio/podcast/P0000/POD0000000001.opus"
    audio = {"aid": "POD0000000001", "path": path, "sample_rate": 16000, "duration": 3.0, "segments": segments}
    write(home / "GigaSpeech.json", json.dumps({"dataset": "GigaSpeech", "language": "EN", "audios": [audio]}))
    expected = {
        "POD0000000001_S0000008": ("AS THEY'RE LEAVING CAN KASH PULL ZAHRA ASIDE REALLY QUICKLY", "en", "", "train"),
        "S10": ("FINE", "en", "", "dev"),
    }
    stretches = {"POD0000000001_S0000008": (0.5, 0.75), "S10": (2.0, 1.0)}
    return Made({"path": str(home / "GigaSpeech.json")}, expected, stretches)


def wenetspeech(home: Path) -> Made:
    record(home / "audio" / "train" / "youtube" / "B00000" / "Y0000000000_--5llN02F84.opus", 3.0)
    record(home / "audio" / "test_net" / "youtube" / "B00000" / "Y0000000001.opus", 1.0)
    audios = [
        {
            "aid": "Y0000000000_--5llN02F84",
            "duration": 2494.57,
            "path": "audio/train/youtube/B00000/Y0000000000_--5llN02F84.opus",
            "segments": [
                {
                    "sid": "Y0000000000_--5llN02F84_S00000",
                    "confidence": 1.0,
                    "begin_time": 0.5,
                    "end_time": 1.5,
                    "subsets": ["L", "M"],
                    "text": "怎么样 这些日子住得还习惯吧",
                },
                {"sid": "W1", "confidence": 0.7, "begin_time": 1, "end_time": 2, "subsets": ["W"], "text": "弱"},
            ],
        },
        {
            "aid": "Y0000000001",
            "path": "audio/test_net/youtube/B00000/Y0000000001.opus",
            "segments": [{"sid": "T1", "begin_time": 0, "end_time": 1, "subsets": ["TEST_NET"], "text": "好"}],
        },
    ]
    write(home / "WenetSpeech.json", json.dumps({"audios": audios}, ensure_ascii=False, indent=1))
    expected = {
        "Y0000000000_--5llN02F84_S00000": ("怎么样这些日子住得还习惯吧", "zh", "", "train"),
        "T1": ("好", "zh", "", "test"),
    }
    return Made({"path": str(home / "WenetSpeech.json")}, expected, {"Y0000000000_--5llN02F84_S00000": (0.5, 1.0)})


def wenetspeech_yue(home: Path) -> Made:
    record(home / "wav" / "gd0049244.wav", 3.0)
    record(home / "wav" / "gd0000001_100_600.wav", 0.5)
    about = {"duration": 1.0, "speaker_id": "gd0049244_spk0", "meta_info": {"link": "somewhere"}}
    rows = [
        {**about, "utt_id": "gd0049244_500_1500", "rover_result": "佢 話 唔 知", "confidence": 0.97},
        {**about, "utt_id": "gd0049244_1500_2500", "rover_result": "唔清楚", "confidence": 0.4},
        {**about, "utt_id": "gd0000001_100_600", "rover_result": "係", "confidence": 1.0, "speaker_id": None},
        {**about, "utt_id": "gd0000002_100_600", "rover_result": "冇", "confidence": 1.0},
    ]
    write(home / "metadata.json", json.dumps(rows, ensure_ascii=False))
    expected = {
        "gd0049244_500_1500": ("佢話唔知", "yue", "gd0049244_spk0", "train"),
        "gd0000001_100_600": ("係", "yue", "", "train"),
    }
    settings = {"path": str(home / "metadata.json"), "audio": str(home / "wav"), "dev_share": 0.0}
    return Made(settings, expected, {"gd0049244_500_1500": (0.5, 1.0), "gd0000001_100_600": (0.0, 0.5)})


def aishell1(home: Path) -> Made:
    root, lines = home / "data_aishell", []
    for split, speaker in (("train", "S0002"), ("dev", "S0724"), ("test", "S0764")):
        record(root / "wav" / split / speaker / f"BAC009{speaker}W0122.wav")
        lines.append(f"BAC009{speaker}W0122 而 对 楼市 成交 抑制 作用 最 大 的 限 购\n")
    write(root / "transcript" / "aishell_transcript_v0.8.txt", "".join([*lines, "BAC009S0002W0999 没有 录音\n"]))
    speakers = {"S0002": "train", "S0724": "dev", "S0764": "test"}
    text = "而对楼市成交抑制作用最大的限购"
    return Made({"path": str(home)}, {f"BAC009{who}W0122": (text, "zh", who, split) for who, split in speakers.items()})


def aishell2(home: Path) -> Made:
    for part, identity in (("iOS/data", "IC0001W0001"), ("iOS/test", "IT0011W0001"), ("Mic/dev", "ID0012W0001")):
        record(home / part / "wav" / identity[:6] / f"{identity}.wav")
        write(home / part / "wav.scp", f"{identity}\twav/{identity[:6]}/{identity}.wav\n")
        write(home / part / "trans.txt", f"{identity}\t搬不走的要及时'关停并转'Let's\n")
    text = "搬不走的要及时关停并转Let's"
    splits = {"IC0001W0001": "train", "IT0011W0001": "test"}
    return Made({"path": str(home)}, {one: (text, "zh", one[:6], split) for one, split in splits.items()})


def textgrid(tiers: dict[str, list[tuple[float, float, str]]]) -> str:
    """Praat's long format."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 3", "tiers? <exists>"]
    lines += [f"size = {len(tiers)}", "item []:"]
    for number, (speaker, intervals) in enumerate(tiers.items(), 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{speaker}"']
        lines += ["        xmin = 0", "        xmax = 3", f"        intervals: size = {len(intervals)}"]
        for place, (begin, end, mark) in enumerate(intervals, 1):
            lines += [f"        intervals [{place}]:", f"            xmin = {begin}", f"            xmax = {end}"]
            lines += [f'            text = "{mark}"']
    return "\n".join(lines) + "\n"


def aishell4(home: Path) -> Made:
    for part, meeting in (("train_L", "20200706_L_R001S01C01"), ("test", "L_R003S01C02")):
        record(home / part / "wav" / f"{meeting}.flac", 3.0, channels=8)
        spoken = {
            "001-M": [(0.0, 0.5, ""), (0.5, 1.5, "大家<sil>下午好"), (1.5, 2.0, "<%>")],
            "002-F": [(1.0, 2.5, "好")],
        }
        write(home / part / "TextGrid" / f"{meeting}.TextGrid", textgrid(spoken))
    expected, stretches = {}, {}
    for meeting, split in (("20200706_L_R001S01C01", "train"), ("L_R003S01C02", "test")):
        for who, text, begin, seconds in (("001-M", "大家下午好", 0.5, 1.0), ("002-F", "好", 1.0, 1.5)):
            speaker = f"{meeting}-{who}"
            expected[f"{speaker}@{begin:.2f}"] = (text, "zh", speaker, split)
            stretches[f"{speaker}@{begin:.2f}"] = (begin, seconds)
    return Made({"path": str(home), "dev_share": 0.0}, expected, stretches)


COMMON_VOICE_HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tage\tgender\tlocale\tsegment\n"


def common_voice(home: Path, locale: str, language: str, validated: bool) -> Made:
    """`validated` holds everything: a new speaker with a new sentence, and two who would give away the test."""
    root = home / "cv-corpus-27.0-2026-09-11" / locale
    rows = {
        "train": [("anna", "1", "one")],
        "dev": [("ben", "2", '"He said ""two"""')],
        "test": [("carl", "3", " 三  three ")],
        "validated": [("dora", "4", "four"), ("carl", "5", "five"), ("emma", "6", "三 three"), ("anna", "1", "one")],
    }
    for table, found in rows.items():
        clips = [(who, f"common_voice_{locale}_{clip}.mp3", text) for who, clip, text in found]
        lines = [f"{who}\t{clip}\tx\t{text}\t2\t0\t\t\t{locale}\t\n" for who, clip, text in clips]
        write(root / f"{table}.tsv", COMMON_VOICE_HEADER + "".join(lines))
        for _, clip, _ in clips:
            record(root / "clips" / clip)
    name = f"common_voice_{locale}_"
    expected = {
        f"{name}1": ("one", language, "anna", "train"),
        f"{name}2": ('He said "two"', language, "ben", "dev"),
        f"{name}3": ("三 three", language, "carl", "test"),
    }
    if validated:
        expected[f"{name}4"] = ("four", language, "dora", "train")
    return Made({"path": str(root.parent)}, expected)


def mdcc(home: Path) -> Made:
    expected = {}
    for part, split in (("train", "train"), ("valid", "dev"), ("test", "test")):
        stem = f"447_1707171250_60387_86.18_{part}"
        record(home / "audio" / f"{stem}.wav")
        write(home / "transcription" / f"{stem}.txt", "點解 嘅\n")
        row = f"./audio/{stem}.wav,./transcription/{stem}.txt,female,0.5\n"
        write(home / f"cnt_asr_{part}_metadata.csv", "audio_path,text_path,gender,duration\n" + row)
        expected[stem] = ("點解嘅", "yue", "", split)
    return Made({"path": str(home)}, expected)


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """As the hub's converter writes it: audio as bytes and a file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {str: datasets.Value("string"), int: datasets.Value("int32"), dict: datasets.Audio(decode=False)}
    features = datasets.Features({key: kinds[type(value)] for key, value in rows[0].items()})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema), path)


def fleurs(home: Path) -> Made:
    for number, split in enumerate(("train", "validation", "test")):
        said = {
            "id": 7,
            "transcription": "呢 個 係 測 試",
            "raw_transcription": "呢個係測試。",
            "language": "Cantonese",
        }
        audio = {"bytes": encode_audio(ramp()), "path": f"100{number}.wav"}
        parquet(home / "yue_hant_hk" / split / "0000.parquet", [{**said, "audio": audio}])
    splits = {"train/1000": "train", "validation/1001": "dev", "test/1002": "test"}
    settings = {"path": str(home), "folder": "yue_hant_hk", "revision": None, "language": "yue"}
    return Made(settings, {one: ("呢個係測試", "yue", "", split) for one, split in splits.items()})


def musan(home: Path) -> Made:
    names = (
        "music/fma/music-fma-0000",
        "noise/free-sound/noise-free-sound-0000",
        "speech/librivox/speech-librivox-0000",
    )
    for name in names:
        record(home / f"{name}.wav")
        write((home / name).parent / "ANNOTATIONS", "text that is no transcript\n")
    return Made({"path": str(home)}, {name: (None, "", name.split("/")[1], "train") for name in names})


def rirs(home: Path) -> Made:
    names = ("pointsource_noises/noise-free-sound-0000", "simulated_rirs/smallroom/Room001/Room001-00001")
    for name in names:
        record(home / f"{name}.wav")
    write(home / "simulated_rirs" / "smallroom" / "rir_list", "--rir-id small-room-Room001\n")
    return Made({"path": str(home)}, {name: (None, "", name.split("/")[-2], "train") for name in names})


def kaldi(home: Path) -> Made:
    record(home / "wavs" / "call one.wav", 3.0)
    record(home / "wavs" / "b.flac")
    train, test = home / "data" / "train_sp", home / "data" / "test"
    write(train / "wav.scp", "call1 wavs/call one.wav\n")
    write(train / "segments", "anna-1 call1 0.5 1.5\nanna-2 call1 2 -1\n")
    write(train / "text", "anna-1 hello  there\nanna-2 again\n")
    write(train / "utt2spk", "anna-1 anna\nanna-2 anna\n")
    write(test / "wav.scp", f"ben-1 {home}/wavs/b.flac\n")
    write(test / "utt2lang", "ben-1 en\n")
    expected = {
        "train_sp/anna-1": ("hello there", "", "anna", "train"),
        "train_sp/anna-2": ("again", "", "anna", "train"),
        "test/ben-1": (None, "en", "", "test"),
    }
    stretches = {"train_sp/anna-1": (0.5, 1.0), "train_sp/anna-2": (2.0, 1.0)}
    return Made({"path": str(home / "data"), "root": str(home)}, expected, stretches)


def cut(audio: Path | str, identity: str = "c1", **more: Any) -> dict[str, Any]:
    """A MonoCut as Lhotse writes it."""
    source = {"type": "file", "channels": [0], "source": str(audio)}
    whole = {"id": "r1", "sources": [source], "sampling_rate": 16000, "num_samples": 48000, "duration": 3.0}
    basic = {"id": identity, "start": 0.5, "duration": 2.0, "channel": 0, "supervisions": [], "recording": whole}
    return {**basic, "type": "MonoCut", **more}


def supervision(start: float, duration: float, text: str, identity: str = "s1", speaker: str = "19") -> dict[str, Any]:
    times = {"id": identity, "recording_id": "r1", "start": start, "duration": duration, "channel": 0}
    return {**times, "text": text, "language": "English", "speaker": speaker}


def lhotse(home: Path) -> Made:
    record(home / "audio" / "r1.flac", 3.0)
    two = [supervision(0.0, 1.0, "ONE", "a"), supervision(1.0, 1.0, "TWO", "b", "20")]
    cuts = [
        cut("audio/r1.flac", "c1", supervisions=[supervision(0.25, 1.0, "HI  YOU")]),
        cut("audio/r1.flac", "c2", supervisions=two),
        cut("audio/r1.flac", "c3"),
    ]
    (home / "libri_cuts_dev-clean.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(one) + "\n" for one in cuts).encode())
    )
    expected = {
        "c1": ("HI YOU", "en", "19", "dev"),
        "c2#a": ("ONE", "en", "19", "dev"),
        "c2#b": ("TWO", "en", "20", "dev"),
        "c3": (None, "", "", "dev"),
    }
    stretches = {"c1": (0.75, 1.0), "c2#a": (0.5, 1.0), "c2#b": (1.5, 1.0), "c3": (0.5, 2.0)}
    return Made({"path": str(home / "libri_cuts_dev-clean.jsonl.gz")}, expected, stretches)


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as shard:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            shard.addfile(about, io.BytesIO(content))
    return path


def tar_shards(home: Path) -> Made:
    """One shard as WeNet's make_shard_list.py writes it, one as WebDataset's users do."""
    sound = encode_audio(ramp())
    tar(home / "train" / "shards_000000000.tar", {"BAC.1_86.18.txt": "你 好".encode(), "BAC.1_86.18.wav": sound})
    about = json.dumps({"text": "hello  you", "speaker": "EN_B1", "language": "en", "dnsmos": 3.3}).encode()
    members = {"EN_B1_W1.flac": sound, "EN_B1_W1.json": about, "EN_B1_W2.flac": sound}
    tar(home / "test" / "EN-B1.tar.gz", members)
    expected = {
        "BAC.1_86.18": ("你好", "", "", "train"),
        "EN_B1_W1": ("hello you", "en", "EN_B1", "test"),
        "EN_B1_W2": (None, "", "", "test"),
    }
    return Made({"path": str(home)}, expected)


def parquet_shards(home: Path) -> Made:
    record(home / "a.wav", 2.0)
    rows = [
        Utterance("x/a", str(home / "a.wav"), 1.0, 0.5, "hello", "en", "anna", "dev"),
        Utterance("b", (home / "a.wav").read_bytes(), 2.0, speaker="ben", split="test"),
    ]
    to_shards(write_catalog(rows, home / "catalog"), home / "shards")
    expected = {"x/a": ("hello", "en", "anna", "dev"), "b": (None, "", "ben", "test")}
    return Made({"path": str(home / "shards")}, expected, {"x/a": (0.0, 1.0), "b": (0.0, 2.0)})


def streamed_shards(home: Path) -> Made:
    made = parquet_shards(home)
    return Made({"url": made.settings["path"]}, made.expected, made.stretches)


def hub(home: Path) -> Made:
    audio = {"bytes": encode_audio(ramp()), "path": "1272-128104-0000.flac"}
    row = {"file": "x", "audio": audio, "text": "MISTER QUILTER", "speaker_id": 1272, "id": "1272-128104-0000"}
    parquet(home / "clean" / "train.100-00000-of-00001.parquet", [{**row, "id": "19-1"}])
    parquet(home / "clean" / "validation-00000-of-00001.parquet", [row])
    parquet(home / "clean" / "test-00000-of-00001.parquet", [{**row, "id": "121-1"}])
    files = [{"split": name, "path": f"clean/{name}-*"} for name in ("train.100", "validation", "test")]
    card = {"configs": [{"config_name": "clean", "data_files": files}]}
    write(home / "README.md", f"---\n{json.dumps(card)}\n---\n")
    settings = {"path": str(home), "config": "clean", "id": "id", "speaker": "speaker_id", "language": "en"}
    splits = {"train": "train.100", "dev": "validation"}
    expected = {"19-1": "train", "1272-128104-0000": "dev"}
    return Made(
        {**settings, "splits": splits},
        {one: ("MISTER QUILTER", "en", "1272", split) for one, split in expected.items()},
    )


def folder(home: Path) -> Made:
    record(home / "train" / "anna" / "1.wav")
    write(home / "train" / "anna" / "1.txt", "hello\n")
    return Made({"path": str(home)}, {"train/anna/1": ("hello", "", "anna", "train")})


def manifest(home: Path) -> Made:
    record(home / "1.wav")
    row = {"audio_filepath": "1.wav", "duration": 0.5, "text": "hello", "lang": "en", "speaker": "a", "split": "test"}
    write(home / "manifest.jsonl", json.dumps(row) + "\n")
    return Made({"path": str(home)}, {"1": ("hello", "en", "a", "test")})


def vowels(seconds: float) -> np.ndarray:
    """A hum with wandering formants in syllables: what a voice activity model takes for speech."""
    times = np.arange(round(seconds * 16_000)) / 16_000
    pitch_hz = 120 + 18 * np.sin(4.4 * times)
    formants = ((500 + 250 * np.sin(13.2 * times), 90, 1.0), (1400 + 600 * np.sin(8.2 * times), 120, 0.5))
    hum = np.zeros_like(times)
    for harmonic in range(1, 30):
        strength = sum(gain / (1 + ((harmonic * pitch_hz - at) / width) ** 2) for at, width, gain in formants)
        hum += strength * np.sin(harmonic * 2 * np.pi * np.cumsum(pitch_hz) / 16_000)
    return (0.1 * hum * np.clip(np.sin(9.4 * times) + 0.7, 0, None)).astype(np.float32)


def long_recordings(home: Path) -> Made:
    """Two turns with silence around them, in a show's folder."""
    (home / "test" / "show").mkdir(parents=True)
    silence = np.zeros(32_000, np.float32)
    write_audio(
        home / "test" / "show" / "1.flac", np.concatenate([silence, vowels(4.0), silence, vowels(3.0), silence])
    )
    pieces = {"test/show/1@1916": (1.92, 3.98), "test/show/1@7900": (7.9, 3.27)}
    settings = {"path": str(home), "workers": 0, "cache": str(home.parent / "heard")}
    return Made(settings, {one: (None, "", "show", "test") for one in pieces}, pieces)


MADE: dict[str, Callable[[Path], Made]] = {
    "folder": folder,
    "manifest": manifest,
    "kaldi": kaldi,
    "lhotse": lhotse,
    "tar_shards": tar_shards,
    "parquet_shards": parquet_shards,
    "streamed_shards": streamed_shards,
    "hub": hub,
    "librispeech": librispeech,
    "libri_light": libri_light,
    "gigaspeech": gigaspeech,
    "aishell1": aishell1,
    "aishell2": aishell2,
    "aishell4": aishell4,
    "wenetspeech": wenetspeech,
    "wenetspeech_yue": wenetspeech_yue,
    "common_voice_en": lambda home: common_voice(home, "en", "en", False),
    "common_voice_zh_cn": lambda home: common_voice(home, "zh-CN", "zh", True),
    "common_voice_zh_hk": lambda home: common_voice(home, "zh-HK", "yue", True),
    "common_voice_yue": lambda home: common_voice(home, "yue", "yue", True),
    "mdcc": mdcc,
    "fleurs": fleurs,
    "musan": musan,
    "rirs": rirs,
    "long_recordings": long_recordings,
}
"""A maker for each file in conf/data that reads a layout."""
