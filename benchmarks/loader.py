"""Corpora of speech in; how fast a loader process feeds a training, and what share of its batches is padding, out.

python benchmarks/loader.py                              # the corpora beside the repository, else the rhyme test
python benchmarks/loader.py /my/corpus --seconds-per-row 10 --json FILE

A few minutes are drawn from the corpora and rewritten as WAV, FLAC, Opus and Parquet shards. Rows are seconds of audio
per second from one worker: ours plain and with the noise of conf/augment/pretrain.yaml, then `datasets` with soundfile
in its transform and torch's own DataLoader, in random batches of as many utterances. `feeds_ratio` is the row "as
found, pretraining" over what the default pretraining takes, loading left out. All are measured in turns, several rounds
in one run, and the median is kept; files come from the page cache: it is work that is measured, not a disk.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from glmasr.build import build
from glmasr.data.catalog import Catalog, Reader, prepare_catalog, write_catalog
from glmasr.data.corpora import AudioFolder, Manifest
from glmasr.data.export import to_shards
from glmasr.data.shards import ParquetShards
from glmasr.data.streaming import StreamedShards
from glmasr.frontend.audio import encode_audio, read_audio, write_audio
from glmasr.speech import RATE_HZ, Batch
from glmasr.training.datamodule import SpeechBatches
from glmasr.training.pretrain import Pretraining
from glmasr.training.record import provenance

REPOSITORY = Path(__file__).resolve().parent.parent
ROUNDS, WARM_BATCHES, PEER_EPOCHS = 3, 3, 5
NOISE = "noise_"
"""Corpora that begin so hold no speech."""

Loaded = tuple[float, float]
"""Seconds of audio in a batch, and with its padding."""


@dataclass
class Row:
    """What delivers batches, and the audio of each round: seconds per second of the clock, and of the worker's CPU."""

    name: str
    loader: Callable[[], DataLoader]
    by_clock: list[float]
    by_cpu: list[float]
    padding: float = 0.0

    def measure(self, seconds: float) -> None:
        """One round."""
        before, padded, audio = _children(), 0.0, 0.0
        clock, heard, loaded = _drained(self.loader(), seconds)
        for one, with_padding in loaded:
            audio, padded = audio + one, padded + with_padding
        self.by_clock.append(heard / clock)
        self.by_cpu.append(audio / max(_children() - before, 1e-9))
        self.padding = 1 - audio / padded


def composed(*overrides: str) -> dict[str, Any]:
    """conf/pretrain.yaml with overrides."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("pretrain", list(overrides)), resolve=True)  # type: ignore[return-value]


def sources(given: Sequence[str]) -> list[Reader]:
    """Readers of the corpora named, of those beside the repository, or of the one everyone has."""
    beside = sorted((REPOSITORY.parent / "shared" / "corpora").glob("*/manifest.jsonl"))
    found = list(given) or [str(one.parent) for one in beside if not one.parent.name.startswith(NOISE)]
    is_manifest = [one.endswith(".jsonl") or (Path(one) / "manifest.jsonl").exists() for one in found]
    readers = [Manifest(one) if yes else AudioFolder(one) for one, yes in zip(found, is_manifest, strict=True)]
    return list(readers) or [build(composed()["data"])]


def drawn(catalogs: Sequence[Catalog], minutes: float, home: Path) -> Catalog:
    """So many minutes from all of them, from each by what it has."""
    total = sum(float(one.durations.sum()) for one in catalogs)
    rows = []
    for number, one in enumerate(catalogs):
        share = float(one.durations.sum()) / total * minutes * 60
        shuffled = np.random.default_rng(number).permutation(len(one))
        rows += [replace(one[int(row)], id=f"{number}/{row}") for row in shuffled[: _count(one, shuffled, share)]]
    return write_catalog(rows, home / "drawn")


def rewritten(catalog: Catalog, home: Path) -> dict[str, Catalog]:
    """The same utterances as files of three formats, in shards, and in shards that are streamed from their folder."""
    ways: dict[str, Callable[[Path, np.ndarray], object]] = {
        "wav": write_audio,
        "flac": write_audio,
        "opus": lambda path, waveform: path.write_bytes(encode_audio(waveform, "opus")),
    }
    written: dict[str, list] = {way: [] for way in ways}
    for number, one in enumerate(catalog):
        waveform = read_audio(one.audio, one.offset_seconds, one.duration_seconds)
        for way, write in ways.items():
            path = home / f"{number}.{way}"
            write(path, waveform)
            seconds = len(waveform) / RATE_HZ
            written[way].append(replace(one, audio=str(path), offset_seconds=0.0, duration_seconds=seconds))
    found = {way: write_catalog(rows, home / f"of_{way}") for way, rows in written.items()}
    to_shards(found["flac"], home / "shards")
    readers: dict[str, Reader] = {
        "parquet": ParquetShards(str(home / "shards")),
        "parquet streamed (file)": StreamedShards(str(home / "shards")),
    }
    return found | {way: prepare_catalog(reader, str(home / "catalogs")) for way, reader in readers.items()}


def ours(catalog: Catalog, workers: int = 1, **damage: Any) -> DataLoader:
    """The loader of a pretraining with conf/pretrain.yaml's batches."""
    settings = composed()["batches"] | {"workers": workers, "decoded_mb": 0}  # decoding is what it measures
    batches = SpeechBatches(catalog, catalog, seed=0, **settings, **damage)
    place = {"global_step": 0, "global_rank": 0, "world_size": 1, "num_devices": 1, "accumulate_grad_batches": 1}
    batches.trainer = SimpleNamespace(**place)  # type: ignore[assignment]
    return batches.train_dataloader()


def peer(table: datasets.Dataset, size: int) -> DataLoader:
    """`datasets` and torch as their manuals put them together, in endless random batches of `size`."""

    def decode(rows: dict[str, list]) -> dict[str, list]:
        waveforms = []
        for audio in rows["audio"]:
            waveform, rate_hz = soundfile.read(_file_of(audio), dtype="float32")
            assert rate_hz == RATE_HZ and waveform.ndim == 1
            waveforms.append(torch.from_numpy(waveform))
        return {"waveform": waveforms}

    def padded(items: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        waveforms = [item["waveform"] for item in items]
        return pad_sequence(waveforms, batch_first=True), torch.tensor([len(one) for one in waveforms])

    rows = table.cast_column("audio", datasets.Audio(decode=False)).select_columns(["audio"]).with_transform(decode)
    endless = _random_batches(len(table), size)
    return DataLoader(rows, batch_sampler=endless, collate_fn=padded, num_workers=1)  # type: ignore[arg-type]


def padding(catalog: Catalog) -> dict[str, float]:
    """Shares of an epoch's samples that are padding: in our batches, and in random ones of as many utterances."""
    durations, batches = catalog.durations, _epoch(catalog)
    size = round(len(durations) / len(batches))
    several = itertools.islice(_random_batches(len(durations), size), PEER_EPOCHS * -(-len(durations) // size))
    return {"ours": _padded(durations, batches), "random": _padded(durations, list(several))}


class Training:
    """The default pretraining without its loader: the same few batches again and again."""

    name = "pretraining without loading"

    def __init__(self, catalog: Catalog):
        config = composed()
        torch.manual_seed(0)
        self.module = Pretraining(
            ear=build(config["frontend"]),
            encoder=build(config["model"]["encoder"]),
            objective=build(config["objective"]),
            optimizer=build(config["optimizer"]),
            schedule=build(config["schedule"]),
            seed=0,
            chunks=config["chunks"],
            **config["masking"],
        )
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.clip = config["trainer"].get("gradient_clip_val")
        self.batches = list(itertools.islice(ours(catalog, workers=0, **build(config["augment"])), 6))
        self.by_clock: list[float] = []
        self.by_cpu: list[float] = []
        self.step(self.batches[0])

    def step(self, batch: Batch) -> None:
        """Features, forward, backward, optimizer."""
        loss = self.module.loss(batch).total
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()

    def measure(self, seconds: float) -> None:
        """One round."""
        clock, cpu, audio = time.perf_counter(), time.process_time(), 0.0
        for batch in itertools.cycle(self.batches):
            self.step(batch)
            audio += batch.seconds
            if time.perf_counter() - clock > seconds:
                break
        self.by_clock.append(audio / (time.perf_counter() - clock))
        self.by_cpu.append(audio / (time.process_time() - cpu))


def rows_of(found: Catalog, home: Path) -> list[Row]:
    """Everything that is timed but the training."""
    damage = build(composed()["augment"])
    catalogs = rewritten(found, home)
    size = round(len(found) / len(_epoch(found)))
    rows = [Row("as found, pretraining", lambda: ours(found, **damage), [], [])]
    for way, catalog in catalogs.items():
        rows.append(Row(way, lambda catalog=catalog: ours(catalog), [], []))
        rows.append(Row(f"{way} + noise", lambda catalog=catalog: ours(catalog, noise=damage["noise"]), [], []))
    for way in ("wav", "flac", "opus"):
        table = datasets.Dataset.from_dict({"audio": [str(one.audio) for one in catalogs[way]]})
        rows.append(Row(f"datasets {way}", lambda table=table: peer(table, size), [], []))
    shards = [str(shard) for shard in sorted((home / "shards").glob("*.parquet"))]
    packed = datasets.Dataset.from_parquet(shards, cache_dir=str(home / "cache"))
    rows.append(Row("datasets parquet", lambda: peer(packed, size), [], []))  # type: ignore[arg-type]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", metavar="CORPUS", help="manifests, or folders of recordings")
    parser.add_argument("--seconds-per-row", type=float, default=10.0, help="over all rounds")
    parser.add_argument("--minutes", type=float, default=4.0, help="of speech that are rewritten")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    limits = composed()["utterances"]
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        readers = sources(given.corpora)
        catalogs = [prepare_catalog(one, str(home / "found")).subset("train", **limits) for one in readers]
        shares = {one.name: padding(found) for one, found in zip(readers, catalogs, strict=True)}
        if len(readers) > 1:
            together = write_catalog(_renamed(catalogs), home / "pool")
            shares["pool"] = padding(together)
        for name, one in shares.items():
            print(f"{name:22} padding {one['ours']:7.2%}   in random batches {one['random']:7.2%}", flush=True)
        found = drawn(catalogs, given.minutes, home)
        rows, training = rows_of(found, home), Training(found)
        for _ in range(ROUNDS):
            for measured in (*rows, training):
                measured.measure(given.seconds_per_row / ROUNDS)
    told = {
        "rows": [_told(row) for row in rows],
        "feeds_ratio": statistics.median(rows[0].by_clock) / statistics.median(training.by_clock),
        "feeds_ratio_cpu": statistics.median(rows[0].by_cpu) / statistics.median(training.by_cpu),
        "padding": list(shares.values())[-1]["ours"],
        "padding_by_corpus": shares,
        "padding_heard": rows[0].padding,
        "training": _told(training),
        "load": [load_before, os.getloadavg()[0]],
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "seconds_per_row": given.seconds_per_row,
        "minutes": given.minutes,
        **provenance(),
    }
    for row in [*told["rows"], told["training"]]:
        print(f"{row['name']:34} {row['audio_seconds_per_second']:8.0f} s/s   {row['per_cpu_second']:8.0f} s/CPU s")
    print(f"feeds {told['feeds_ratio']:.1f} trainings (by CPU time {told['feeds_ratio_cpu']:.1f})", told["load"])
    if given.json:
        given.json.write_text(json.dumps(told, indent=1))


def _told(row: "Row | Training") -> dict[str, Any]:
    return {
        "name": row.name,
        "audio_seconds_per_second": round(statistics.median(row.by_clock), 1),
        "per_cpu_second": round(statistics.median(row.by_cpu), 1),
        "rounds": [round(one, 1) for one in row.by_clock],
    }


def _drained(loader: DataLoader, seconds: float) -> tuple[float, float, list[Loaded]]:
    """Time and audio of the batches behind the first few, and every batch."""
    batches, loaded = iter(loader), list[Loaded]()
    loaded += [_seconds_of(next(batches)) for _ in range(WARM_BATCHES)]
    started = time.perf_counter()
    while (clock := time.perf_counter() - started) < seconds:
        loaded.append(_seconds_of(next(batches)))
    return clock, sum(audio for audio, _ in loaded[WARM_BATCHES:]), loaded


def _seconds_of(batch: Batch | tuple[torch.Tensor, torch.Tensor]) -> Loaded:
    waveform, lengths = (batch.waveform, batch.lengths) if isinstance(batch, Batch) else batch
    return float(lengths.sum()) / RATE_HZ, waveform.numel() / RATE_HZ


def _children() -> float:
    """CPU seconds of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _epoch(catalog: Catalog) -> list[list[int]]:
    """The rows of our batches until all have been in one."""
    seen, batches = set[int](), []
    for keys in ours(catalog, workers=0).batch_sampler:  # type: ignore[union-attr]
        batches.append([row for row, _ in keys])
        seen |= set(batches[-1])
        if len(seen) == len(catalog):
            break
    return batches


def _random_batches(rows: int, size: int) -> Iterator[list[int]]:
    rng = np.random.default_rng(0)
    while True:
        shuffled = rng.permutation(rows).tolist()
        yield from (shuffled[start : start + size] for start in range(0, rows, size))


def _padded(durations: np.ndarray, batches: Sequence[Sequence[int]]) -> float:
    real = sum(float(durations[rows].sum()) for rows in batches)
    return 1 - real / sum(len(rows) * float(durations[rows].max()) for rows in batches)


def _count(catalog: Catalog, shuffled: np.ndarray, seconds: float) -> int:
    """How many of the shuffled rows make up so many seconds, one at least."""
    return max(1, int(np.searchsorted(np.cumsum(catalog.durations[shuffled]), seconds)))


def _renamed(catalogs: Sequence[Catalog]) -> Iterator:
    return (replace(one, id=f"{number}/{one.id}") for number, found in enumerate(catalogs) for one in found)


def _file_of(audio: dict[str, Any]) -> Any:
    return io.BytesIO(audio["bytes"]) if audio["bytes"] is not None else audio["path"]


if __name__ == "__main__":
    main()
