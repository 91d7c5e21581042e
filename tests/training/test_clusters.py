"""Codebooks from real speech: fitted once in bounded memory, shared through a file, made of an earlier encoder too."""

import json

import pytest
import torch

from glmasr.build import build
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.frontend.pipeline import Ear
from glmasr.model.codebook import Codebook, MeanCepstra
from glmasr.objective.cluster import Cluster
from glmasr.speech import InputError
from glmasr.training.clusters import Block, fit_codebooks, gather, make_clusters
from tests.small import composed, random_bundle, small


def book(**options) -> Codebook:
    return Codebook(MeanCepstra(), "kmeans", **{"codebooks": 1, "codes": 8, **options})


def test_gathering_stops_at_the_stated_number_of_frames_and_hears_every_speaker(catalog):
    train = catalog.subset(split="train")
    asked = []

    class Listening(MeanCepstra):
        def forward(self, features, lengths, frames):
            asked.append(frames)
            return super().forward(features, lengths, frames)

    vectors = gather(train, Ear(), Codebook(Listening(), "kmeans", 1, 8), 60, seed=0)
    assert vectors.shape == (60, 39) and sum(asked) - asked[-1] < 60 <= sum(asked) and len(asked) < len(train)
    every = gather(train, Ear(), book(), 10**6, seed=0)
    assert abs(len(every) - train.durations.sum() * 25) < 2 * len(train)
    assert torch.equal(vectors, every[:60])


def test_one_codebook_is_fitted_once_and_shared_through_a_file(catalog, corpus, tmp_path, capsys):
    home = small(corpus, tmp_path)
    config = composed("clusters", *home[:5], "frames=300", "codebook.codes=8")
    make_clusters(config)
    written = tmp_path / "runs" / "clusters"
    facts = json.loads((written / "codebook.json").read_text())
    assert facts["frames"] == 300 and facts["codes"] == 8 and 1 < facts["perplexity"] <= 8 and facts["unused"] == 0
    assert "wrote" in capsys.readouterr().err

    train = catalog.subset(split="train")
    fresh, shared = Cluster(16, book()), Cluster(16, book())
    assert len(list(fit_codebooks(fresh, Ear(), train, 300, 0))) == 1
    assert list(fit_codebooks(fresh, Ear(), train, 300, 0)) == [], "fitted already"
    assert list(fit_codebooks(shared, Ear(), train, 300, 0, str(written / "codebook.safetensors"))) == []
    assert torch.equal(fresh.codebook.centers, shared.codebook.centers) and shared.codebook.fitted
    with pytest.raises(InputError, match="was made for another codebook"):
        wrong = Cluster(16, book(codes=9))
        list(fit_codebooks(wrong, Ear(), train, 300, 0, str(written / "codebook.safetensors")))


def test_the_block_of_an_earlier_encoder_can_be_what_is_clustered(catalog, tmp_path):
    random_bundle(tmp_path / "bundle")
    source = Block(str(tmp_path / "bundle"), 1)
    assert not any(p.requires_grad for p in source.parameters())
    dataset = SpeechDataset(catalog.subset(split="dev"))
    batch = collate([dataset[row, 0] for row in range(len(dataset))])
    features, lengths = Ear()(batch.waveform, batch.lengths)
    encoder = source.encoder
    frames, frame_lengths = encoder.subsample(features, lengths)
    encoder.train()  # an objective in training mode must not switch its dropout on
    heard = source(features, lengths, frames.shape[1])
    assert heard.shape == (2, frames.shape[1], encoder.width)
    torch.testing.assert_close(heard, encoder.eval().layers(frames, frame_lengths)[0])
    assert not torch.equal(heard, encoder.contextualize(frames, frame_lengths))
    with pytest.raises(InputError, match="blocks 1 to 2, not 3"):
        Block(str(tmp_path / "bundle"), 3)


def test_units_need_an_encoder():
    with pytest.raises(InputError, match="none is named: pass bundle=DIR"):
        build(composed("pretrain", "experiment/pretrain=units")["objective"])


@pytest.mark.parametrize("preset", [True, False])
def test_kmeans_of_a_block_pretrains(catalog, tmp_path, preset):
    random_bundle(tmp_path / "bundle")
    choice = ["experiment/pretrain=units", f"bundle={tmp_path / 'bundle'}"]  # the block of what it goes on from
    if not preset:
        choice = ["objective=kmeans", "codebook@objective.codebook=kmeans_block"]
        choice += [f"objective.codebook.source.bundle={tmp_path / 'bundle'}"]
    small = ["objective.codebook.source.block=2", "objective.codebook.codes=6", "objective.width=32"]
    config = composed("pretrain", *choice, *small)
    objective = build(config["objective"])
    [facts] = fit_codebooks(objective, Ear(), catalog.subset(split="train"), 300, 0)
    assert facts["perplexity"] > 1.5
    trained = {name.split(".")[0] for name, p in objective.named_parameters() if p.requires_grad}
    assert trained == {"head"}
