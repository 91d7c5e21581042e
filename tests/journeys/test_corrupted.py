"""A corpus of which 1 % is broken: `make prepare` counts it by cause, and training is bit for bit that of the rest."""

import functools
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glmasr.build import build
from glmasr.bundle import open_bundle
from glmasr.data.catalog import Catalog
from glmasr.data.prepare import JOURNAL, Prepared, prepare_corpus
from glmasr.frontend.audio import read_audio
from glmasr.speech import Batch
from glmasr.training import run as stages
from glmasr.training.datamodule import SpeechBatches
from tests.data.test_prepare import broken
from tests.journeys.test_spine import metrics
from tests.small import REPOSITORY, SMALL, composed

WAYS = [
    *("truncated", "empty", "a web page", "not finite", "more than 64 channels", "impossible sample rate"),
    *("missing", "damaged"),
]
"""What goes wrong, by the cause it is counted under; `damaged` has noise behind a header that is whole."""

EIGHT_AT_ONCE = "eight at once"


@dataclass
class Corpus:
    """Rows of a manifest, all of them sound, of which the first of `fragile` can be had broken."""

    rows: list[dict]
    fragile: list[int]
    share: float
    home: Path
    prepared: dict[int, str] = field(default_factory=dict)
    batches: dict[int, list[Batch]] = field(default_factory=dict)

    def prepare(self, name: str, replaced: dict[int, bytes | None] | None = None, without: int = 0) -> dict:
        """The report on the corpus with rows replaced, or without so many of the fragile; sound ones are heard once."""
        folder = self.home / "manifests" / name
        folder.mkdir(parents=True, exist_ok=True)
        left_out, written = set(self.fragile[:without]), []
        for number, row in enumerate(self.rows):
            if replaced and number in replaced:
                row = row | {"audio_filepath": f"{number}.opus"}
                if (content := replaced[number]) is not None:
                    (folder / f"{number}.opus").write_bytes(content)
            written += [] if number in left_out else [json.dumps(row)]
        (folder / "manifest.jsonl").write_text("\n".join(written))
        (self.home / name).mkdir(exist_ok=True)
        if known := next(iter(self.prepared.values()), None):
            shutil.copyfile(self.home / known / JOURNAL, self.home / name / JOURNAL)
        limits = [f"catalogs={self.home}", f"name={name}", f"max_skipped_share={self.share}", "workers=2"]
        home = prepare_corpus(composed("prepare", "data@source=manifest", f"source.path={folder}", *limits))
        return json.loads((home / "report.json").read_text())

    def rest(self, count: int) -> str:
        """What is left where the first `count` fragile rows never were, prepared alone: its name."""
        if count not in self.prepared:
            self.prepare(f"rest_{count}", without=count)
            self.prepared[count] = f"rest_{count}"
        return self.prepared[count]

    def open(self, name: str) -> Catalog:
        return Prepared(name, str(self.home)).open()


def spoken_rows(rhyme_root: Path) -> list[dict]:
    """A dozen clips, and eight to break."""
    clips = sorted((rhyme_root / "rhyme_test" / "audio").glob("F*_w1.flac"))[:20]
    splits = ["dev", *["train"] * 9] * 2
    return [
        {"id": clip.stem, "audio_filepath": str(clip), "text": f"please {clip.stem}", "split": split}
        for clip, split in zip(clips, splits, strict=True)
    ]


def shared_rows(corpora: Path) -> list[dict]:
    """`librispeech_mini`, its recordings named where they lie."""
    folder = corpora / "librispeech_mini"
    rows = map(json.loads, (folder / "manifest.jsonl").read_text("utf-8").splitlines())
    return [row | {"audio_filepath": str(folder / row["audio_filepath"])} for row in rows]


@pytest.fixture(scope="module")
def made() -> dict[str, Corpus]:
    """Corpora by the fixture they come from: pytest would make one for every pair of parameters."""
    return {}


@pytest.fixture
def speech(request, made, tmp_path_factory) -> Corpus:
    """A small corpus everyone has, or 301 utterances of which three are 1 %."""
    if request.param not in made:
        is_shared = request.param == "shared_corpora"
        rows = (shared_rows if is_shared else spoken_rows)(request.getfixturevalue(request.param))
        trained = [number for number, row in enumerate(rows) if row["split"] == "train"]
        fragile = np.random.default_rng(0).permutation(trained)[:8].tolist()
        home = tmp_path_factory.mktemp(request.param)
        made[request.param] = Corpus(rows, fragile, 0.05 if is_shared else 0.5, home)
    return made[request.param]


def corrupted(speech: Corpus, way: str) -> dict[int, bytes | None]:
    """Content of the rows to replace: three broken in one way, or eight each in another."""
    rows = speech.fragile[: 8 if way == EIGHT_AT_ONCE else 3]
    ways = WAYS if way == EIGHT_AT_ONCE else [way] * 3
    return {
        row: broken(read_audio(speech.rows[row]["audio_filepath"]))[how] for row, how in zip(rows, ways, strict=True)
    }


@functools.cache
def settings() -> dict:
    """What `make pretrain` would do if it were told nothing."""
    return composed("pretrain")


def training_batches(catalog: Catalog, step: int = 0) -> tuple[torch.utils.data.DataLoader, dict]:
    """The loader that `make pretrain` would begin a step with, noise and all, and the dataset behind it."""
    config = settings()
    train, dev = (catalog.subset(split, **config["utterances"]) for split in ("train", "dev"))
    batches = SpeechBatches(train, dev, seed=3, **config["batches"], **build(config["augment"]))
    batches.trainer = SimpleNamespace(
        global_step=step, global_rank=0, world_size=1, num_devices=1, accumulate_grad_batches=1
    )
    loader = batches.train_dataloader()
    return loader, {"dataset": loader.dataset, "rows": len(train)}


def epoch_length(catalog: Catalog) -> int:
    """Batches until every row has been in one."""
    loader, facts = training_batches(catalog)
    seen: set[int] = set()
    for number, keys in enumerate(loader.batch_sampler, 1):
        seen |= {row for row, _ in keys}
        if len(seen) == facts["rows"]:
            return number
    raise AssertionError("the batches end before every row was in one")


def drawn(catalog: Catalog) -> list[Batch]:
    """The first three batches, and three on either side of an epoch's end."""
    begin, end = training_batches(catalog)[0], training_batches(catalog, max(epoch_length(catalog) - 3, 0))[0]
    return [*islice(begin, 3), *islice(end, 6)]


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids == other.ids and one.texts == other.texts and one.index == other.index
        for name in ("waveform", "clean", "lengths"):
            assert torch.equal(getattr(one, name), getattr(other, name)), f"{name} of batch {one.index}"


CASES = [*(("shared_corpora", way) for way in WAYS), ("shared_corpora", EIGHT_AT_ONCE), ("rhyme_root", EIGHT_AT_ONCE)]


@pytest.mark.parametrize(("speech", "way"), CASES, indirect=["speech"])
def test_the_batches_are_those_of_the_rest_alone(speech, way):
    replaced = corrupted(speech, way)
    rest = speech.open(speech.rest(len(replaced)))
    told = speech.prepare(way.replace(" ", "_"), replaced)
    assert told["skipped"] == (dict.fromkeys(WAYS, 1) if way == EIGHT_AT_ONCE else {way: 3})
    ours = speech.open(way.replace(" ", "_"))
    assert len(ours) == len(speech.rows) - len(replaced) and list(ours) == list(rest)
    assert not {speech.rows[row]["id"] for row in replaced} & {one.id for one in ours}
    if len(replaced) not in speech.batches:
        speech.batches[len(replaced)] = drawn(rest)
    assert_equal(drawn(ours), speech.batches[len(replaced)])


def options(home: Path, name: str) -> list[str]:
    """Three steps and a validation on a prepared corpus, under `home`."""
    pace = ["trainer.max_steps=3", "trainer.val_check_interval=3", "trainer.log_every_n_steps=1"]
    data = ["data=prepared", f"data.name={name}", f"data.root={home}", f"run_dir={home}/runs/{name}"]
    return [*data, *SMALL, *pace, "probe.every_steps=null", "utterances.max_seconds=10"]


def by_scripts(home: Path, names: list[str]) -> None:
    """Train on each by scripts/pretrain.py, side by side."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    script = [sys.executable, str(REPOSITORY / "scripts" / "pretrain.py")]
    commands = [[*script, *options(home, name)] for name in names]
    for process in [subprocess.Popen(command, cwd=home, env=environment, **pipe) for command in commands]:
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said


def in_turn(home: Path, names: list[str]) -> None:
    """Train on each in this process, which costs no imports."""
    for name in names:
        stages.pretrain(composed("pretrain", *options(home, name)))


WAYS_TO_TRAIN = [("shared_corpora", by_scripts), ("rhyme_root", in_turn)]


@pytest.mark.parametrize(("speech", "train"), WAYS_TO_TRAIN, indirect=["speech"])
def test_a_training_is_that_of_the_rest_alone(speech, train):
    rest = speech.rest(8)
    speech.prepare("mixed", corrupted(speech, EIGHT_AT_ONCE))
    train(speech.home, ["mixed", rest])
    mixed, alone = (speech.home / "runs" / name for name in ("mixed", rest))
    assert open_bundle(mixed / "bundle").digest() == open_bundle(alone / "bundle").digest()
    assert metrics(mixed) == metrics(alone) and len(metrics(mixed)) == 3 + 1


@pytest.fixture
def breakable(rhyme_root, tmp_path) -> Corpus:
    """A prepared corpus whose recordings are our own."""
    rows = spoken_rows(rhyme_root)
    for row in rows:
        row["audio_filepath"] = shutil.copy(row["audio_filepath"], tmp_path)
    corpus = Corpus(rows, [], 0.0, tmp_path)
    corpus.prepare("mine")
    return corpus


def harm(breakable: Corpus) -> set[str]:
    """Delete one recording and cut another short, both for training; their ids."""
    gone, short = breakable.rows[2], breakable.rows[7]
    os.unlink(gone["audio_filepath"])
    os.truncate(short["audio_filepath"], os.path.getsize(short["audio_filepath"]) // 2)
    return {gone["id"], short["id"]}


def test_what_breaks_after_the_preparation_gives_its_place_to_another(breakable):
    catalog = breakable.open("mine")
    count = 2 * epoch_length(catalog)
    before = list(islice(training_batches(catalog)[0], count))
    lost = harm(breakable)
    loader, facts = training_batches(catalog)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        after = list(islice(loader, count))
    assert [one.category for one in caught] == [RuntimeWarning] and "takes its place" in str(caught[0].message)
    assert facts["dataset"].unreadable == sum(one.ids.count(name) for one in before for name in lost) >= 4
    for was, now in zip(before, after, strict=True):
        assert len(now.ids) == len(was.ids) and not lost & set(now.ids) and torch.isfinite(now.waveform).all()
        for row in [row for row, name in enumerate(was.ids) if name not in lost]:
            assert now.ids[row] == was.ids[row] and now.lengths[row] == was.lengths[row]
            size = int(now.lengths[row])
            assert torch.equal(now.waveform[row, :size], was.waveform[row, :size])


def test_what_breaks_after_the_preparation_stops_no_training(breakable):
    harm(breakable)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stages.pretrain(composed("pretrain", *options(breakable.home, "mine"), "trainer.max_steps=6"))
    assert sum("takes its place" in str(one.message) for one in caught) == 1
    folder = breakable.home / "runs" / "mine"
    losses = [float(row["train/loss"]) for row in metrics(folder) if row["train/loss"]]
    assert len(losses) == 6 and np.isfinite(losses).all() and (folder / "bundle").is_dir()
