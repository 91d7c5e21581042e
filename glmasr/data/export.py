"""A catalog in; a manifest for other toolkits, or packed Parquet shards for a cluster, out."""

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from tqdm import tqdm

from glmasr.build import build
from glmasr.data.catalog import Catalog, prepare_catalog
from glmasr.data.shards import SHARD_LIST
from glmasr.frontend.audio import ENCODINGS, UnreadableAudio, encode_audio, read_audio
from glmasr.speech import RATE_HZ, InputError, Interrupted, Utterance

SHARD_FEATURES = datasets.Features(
    id=datasets.Value("string"),
    audio=datasets.Audio(decode=False),
    duration=datasets.Value("float64"),
    text=datasets.Value("string"),
    language=datasets.Value("string"),
    speaker=datasets.Value("string"),
    split=datasets.Value("string"),
)
"""`load_dataset` of a folder of shards gives these columns, the audio playable in the hub's viewer."""

ROWS_AT_A_TIME = 100
"""A row group: what a reader over a network fetches at a time, so that it need not wait long or hold much."""

MANIFEST = "manifest.jsonl"
UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))


def export_corpus(config: dict[str, Any]) -> None:
    """`make shards`: the corpus `config["data"]` describes as shards in `folder`, or as the manifest there.

    Says on stdout what is there and how to use it. Interrupted on Ctrl-C; InputError where the settings do not fit.
    """
    catalog = prepare_catalog(build(config["data"]), config["catalogs"])
    folder, form = Path(config["folder"]), config["format"]
    if form == "manifest":
        written = [to_manifest(catalog, folder / MANIFEST)]
        seconds, what = float(catalog.durations.sum()), f"a manifest of {len(catalog)} utterances"
        use = f"data=manifest data.path={folder}"
    else:
        try:
            written = to_shards(catalog, folder, form, config["shard_seconds"])
        except KeyboardInterrupt as error:
            raise Interrupted("stopped; the same command goes on behind the last whole shard") from error
        seconds, what = sum(map(_seconds_in, written)), f"{len(written)} shard{'s' * (len(written) > 1)}"
        use = f"data=streamed_shards data.url={folder}"
    size = sum(file.stat().st_size for file in written)
    print(f'{folder}: {what}, {seconds / 3600:.2f} h, {_readable(size)}: make pretrain ARGS="{use}"')


def to_manifest(catalog: Catalog, path: str | Path) -> Path:
    """Write NeMo's JSONL, whole or not at all; paths below its folder are relative, so that both can move together.

    InputError where the catalog holds audio as bytes, which a manifest cannot name.
    """
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            for utterance in catalog:
                file.write(json.dumps(_manifest_row(utterance, path.parent), ensure_ascii=False) + "\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def to_shards(catalog: Catalog, folder: str | Path, format: str = "flac", shard_seconds: float = 3600.0) -> list[Path]:
    """Write 16 kHz mono FLAC or Opus into Parquet files of about `shard_seconds` each; a run cut short goes on.

    FLAC is exact and the same catalog gives the same files. What cannot be read is left out and listed in skipped.tsv.
    InputError where the folder holds other shards.
    """
    if format not in ENCODINGS:
        raise InputError(f"'{format}' is no format of shards: use one of {', '.join(ENCODINGS)}")
    if not shard_seconds > 0:
        raise InputError(f"shard_seconds={shard_seconds:g} holds no audio: give the seconds of a shard, say 3600")
    folder, plan = Path(folder), shard_plan(catalog.durations, shard_seconds)
    folder.mkdir(parents=True, exist_ok=True)
    shards = [folder / f"shard-{number:05d}-of-{len(plan):05d}.parquet" for number in range(len(plan))]
    contents = hashlib.sha256(repr((format, shard_seconds, catalog.texts(), catalog.speakers.tolist())).encode())
    contents.update(catalog.durations.tobytes())
    _claim(folder, {"contents": contents.hexdigest(), "shards": [shard.name for shard in shards]})
    for shard, rows in zip(tqdm(shards, desc="shards", unit=" shards", disable=None), plan, strict=True):
        if not shard.exists():
            _write_shard(catalog.rows(rows), shard, format)
    return shards


def shard_plan(durations: np.ndarray, shard_seconds: float) -> list[np.ndarray]:
    """Rows of each shard, in their order: a shard is full when the next row would begin behind `shard_seconds`."""
    begins = np.concatenate([[0.0], np.cumsum(durations, dtype=np.float64)[:-1]])
    _, first = np.unique(begins // shard_seconds, return_index=True)
    return np.split(np.arange(len(durations)), first[1:])


def _seconds_in(shard: Path) -> float:
    return float(np.sum(pyarrow.parquet.read_table(shard, columns=["duration"])["duration"].to_numpy()))


def _readable(size: int) -> str:
    """Bytes as people say them."""
    return next(f"{size / unit:.{1 if unit > 1 else 0}f} {name}" for unit, name in UNITS if size >= unit or unit == 1)


def _write_shard(catalog: Catalog, shard: Path, format: str) -> None:
    unfinished = shard.with_name(f".{shard.name}.{os.getpid()}.tmp")
    schema = SHARD_FEATURES.arrow_schema
    skipped: list[str] = []
    try:
        with pyarrow.parquet.ParquetWriter(unfinished, schema) as writer:
            rows = _shard_rows(catalog, format, skipped)
            while some := list(itertools.islice(rows, ROWS_AT_A_TIME)):
                writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))
        os.replace(unfinished, shard)
    finally:
        unfinished.unlink(missing_ok=True)
    if skipped:
        with open(shard.parent / "skipped.tsv", "a", encoding="utf-8") as listing:
            listing.writelines(skipped)
        print(f"{shard.name}: left out {len(skipped)}, listed in {shard.parent / 'skipped.tsv'}", file=sys.stderr)


def _shard_rows(catalog: Catalog, format: str, skipped: list[str]) -> Iterator[dict]:
    for one in catalog:
        try:
            waveform = read_audio(one.audio, one.offset_seconds, one.duration_seconds)
        except UnreadableAudio as error:
            skipped.append(f"{one.id}\t{error.cause}\t{error}\n")
            continue
        known = {"text": one.text, "language": one.language, "speaker": one.speaker, "split": one.split}
        audio = {"bytes": encode_audio(waveform, format), "path": f"{one.id.replace('/', '_')}.{format}"}
        yield {"id": one.id, "audio": audio, "duration": len(waveform) / RATE_HZ, **known}


def _claim(folder: Path, listing: dict) -> None:
    """Say what the folder is going to hold; InputError where it holds something else."""
    file = folder / SHARD_LIST
    if file.exists():
        if json.loads(file.read_text("utf-8")) != listing:
            raise InputError(f"'{folder}' holds the shards of another export; name another folder or delete it")
        return
    if any(folder.glob("*.parquet")):
        raise InputError(f"'{folder}' holds other Parquet files; name an empty folder")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(listing, indent=1), "utf-8")
    os.replace(unfinished, file)


def _manifest_row(utterance: Utterance, folder: Path) -> dict:
    if isinstance(utterance.audio, bytes):
        raise InputError(f"'{utterance.id}' is bytes in the catalog, which a manifest cannot name; export to shards")
    audio = os.path.abspath(utterance.audio)
    inside = os.path.commonpath([audio, folder]) == str(folder)
    row = {
        "id": utterance.id,
        "audio_filepath": os.path.relpath(audio, folder) if inside else audio,
        "offset": utterance.offset_seconds or None,
        "duration": utterance.duration_seconds,
        "text": utterance.text,
        "lang": utterance.language or None,
        "speaker": utterance.speaker or None,
        "split": utterance.split,
    }
    return {key: value for key, value in row.items() if value is not None}
