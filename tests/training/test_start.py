"""What a training begins with: a bundle's weights and vocabulary, and transcripts that fit their audio."""

import json

import pytest
import torch
from torch.nn.functional import ctc_loss

from glmasr.bundle import build_recognizer, open_bundle
from glmasr.data.catalog import write_catalog
from glmasr.frontend.logmel import feature_lengths
from glmasr.model.recognizer import VOCABULARY
from glmasr.model.subsampling import frame_lengths
from glmasr.speech import RATE_HZ, InputError, Utterance
from glmasr.text.tokenizer import learn_characters
from glmasr.training.start import (
    adapted,
    feasible,
    fresh_blocks,
    kept_tokenizer,
    say_left_out,
    start_from,
    with_dropout,
)
from tests.small import SMALL, composed, random_bundle


def test_an_utterance_that_cannot_hold_its_text_is_left_out(tmp_path, capsys):
    # 0.4 s are ten encoder frames: "abcdefghi" fits, ten characters do not, and a double one needs a blank between.
    texts = ["abcdefghi", "abcdefghij", "aabbccdd"]
    rows = [Utterance(text, f"{text}.wav", 0.4, text=text) for text in texts]
    catalog, tokenizer = write_catalog(rows, tmp_path / "c"), learn_characters(texts)
    assert feasible(catalog, tokenizer).texts() == ["abcdefghi"]
    said = capsys.readouterr().err
    assert "left out 2 of 3 utterances" in said and ": abcdefghij, aabbccdd\n" in said
    with pytest.raises(InputError, match="longer than its audio"):
        feasible(write_catalog(rows[1:], tmp_path / "d"), tokenizer)


def test_whatever_is_left_out_is_listed(tmp_path, capsys):
    texts = ["good", *(f"{n} is far too long" for n in range(8))]
    rows = [Utterance(f"u{n}", f"{n}.wav", 0.4, text=text) for n, text in enumerate(texts)]
    feasible(write_catalog(rows, tmp_path / "c"), learn_characters(texts), tmp_path / "left_out.jsonl")
    said = capsys.readouterr().err
    assert "left out 8 of 9" in said and ": u1, u2, u3, u4, u5 and 3 more; " in said and "left_out.jsonl" in said
    listed = [json.loads(line) for line in (tmp_path / "left_out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in listed] == [f"u{n}" for n in range(1, 9)]
    assert listed[0] == {"id": "u1", "text": texts[1], "frames": 10, "frames_needed": 18}


def test_what_is_left_out_for_its_length_is_counted(tmp_path, capsys):
    rows = [Utterance(f"u{n}", f"{n}.wav", seconds) for n, seconds in enumerate((0.05, 0.1, 0.2, 29.9, 31.0, 40.0))]
    catalog = write_catalog(rows, tmp_path / "c")
    kept = {"min_seconds": 0.1, "max_seconds": 30.0}
    say_left_out(catalog, **kept)
    said = capsys.readouterr().err
    assert said == (
        "glmasr: left out 3 of 6 utterances: 1 shorter than utterances.min_seconds=0.1, "
        "2 longer than utterances.max_seconds=30\n"
    )
    say_left_out(catalog.subset(**kept), **kept)
    assert not capsys.readouterr().err
    say_left_out(catalog, min_seconds=0.1, max_seconds=None)
    assert "left out 1 of 6 utterances: 1 shorter" in capsys.readouterr().err


def test_what_is_kept_has_a_path_through_its_frames_and_little_else_has(tmp_path):
    """Held against torch's CTC loss, infinite where no path exists, at every length of 10 to 60 frames."""
    texts = ["abcabcabcab", "aabbccaabb", "aaaaaaaaaa", "abbcabbcabbcabc"]
    tokenizer = learn_characters(texts)
    seconds = [round(0.4 + 0.013 * n, 3) for n in range(60)]
    for text in texts:
        tokens = torch.tensor([tokenizer.encode(text)])
        rows = [Utterance(str(n), "a.wav", length, text=text) for n, length in enumerate(seconds)]
        kept = {row.id for row in feasible(write_catalog(rows, tmp_path / text), tokenizer)}
        for n, length in enumerate(seconds):
            frames = frame_lengths(feature_lengths(torch.tensor([int(length * RATE_HZ)])))
            scores = torch.zeros(int(frames), 1, tokenizer.size).log_softmax(-1)
            possible = ctc_loss(scores, tokens, frames, torch.tensor([len(text)])).isfinite().item()
            one_more = ctc_loss(scores[:-1], tokens, frames - 1, torch.tensor([len(text)])).isfinite().item()
            assert possible if str(n) in kept else not one_more


def test_how_many_blocks_begin_afresh_is_a_number_or_what_the_probe_says():
    probed = {"training": {"probe": {"reinitialized_blocks": 2}}}
    assert [fresh_blocks(asked, probed) for asked in (0, 1, "auto")] == [0, 1, 2]
    assert fresh_blocks("auto", {"training": {"probe": None}}) == fresh_blocks("auto", {"training": {}}) == 0
    assert fresh_blocks("auto", {"model": {}}) == 0  # from scratch
    with pytest.raises(InputError, match="reinitialized_blocks=top is neither"):
        fresh_blocks("top", probed)


def test_fine_tuning_starts_from_all_of_a_bundle_but_its_fresh_top(tmp_path):
    weights = random_bundle(tmp_path / "b")
    recognizer = build_recognizer(composed("finetune", *SMALL)["model"], 9)
    bundle = open_bundle(tmp_path / "b")
    start_from(recognizer, bundle, reinitialized_blocks=1)
    fresh = {name for name, value in recognizer.encoder.state_dict().items() if not torch.equal(value, weights[name])}
    assert fresh and all(name.startswith("blocks.1.") for name in fresh)
    start_from(recognizer, bundle, reinitialized_blocks=0)
    assert all(torch.equal(value, weights[name]) for name, value in recognizer.encoder.state_dict().items())


def test_the_heads_of_a_recognizer_are_kept_if_asked_or_there(tmp_path):
    random_bundle(tmp_path / "encoder")
    random_bundle(tmp_path / "recognizer", learn_characters(["ab"]))
    encoder, recognizer = open_bundle(tmp_path / "encoder"), open_bundle(tmp_path / "recognizer")
    for heads in ("auto", "keep"):
        assert kept_tokenizer(heads, recognizer) is recognizer.tokenizer
    assert all(kept_tokenizer(*one) is None for one in (("fresh", recognizer), ("auto", encoder), ("auto", None)))
    with pytest.raises(InputError, match="heads=keep needs the bundle of a recognizer"):
        kept_tokenizer("keep", encoder)
    with pytest.raises(InputError, match="heads=old is not one of auto, keep, fresh"):
        kept_tokenizer("old", recognizer)


def test_fine_tuning_goes_on_from_a_recognizer_with_what_is_new(tmp_path):
    weights = random_bundle(tmp_path / "b", learn_characters(["ab"]))
    recognizer = build_recognizer(composed("finetune", *SMALL)["model"], 6)
    start_from(recognizer, open_bundle(tmp_path / "b"), 1, [0, 1, 2, 3, -1, 4])
    rows = {name: [0, 1, 2, 3, 5] if name in VOCABULARY else slice(None) for name in weights}
    now = recognizer.state_dict()
    fresh = {name for name, value in now.items() if not torch.equal(value[rows[name]], weights[name])}
    assert fresh and all(name.startswith("encoder.blocks.1.") for name in fresh)


def test_a_model_without_a_decoder_gets_its_dropout_too():
    model = {"encoder": {"width": 8, "dropout": 0.0}, "decoder": None}
    assert with_dropout(model, 0.1) == {"encoder": {"width": 8, "dropout": 0.1}, "decoder": None}
    assert with_dropout(model, None) is model


def test_what_begins_afresh_is_trained_whole(tmp_path):
    recognizer = build_recognizer(composed("finetune", *SMALL)["model"], 6)
    size = adapted(recognizer, 1, False, rank=2, alpha=4.0)
    assert size == f"{sum(p.numel() for p in recognizer.parameters() if p.requires_grad) / 1e6:.2f} M"
    names = dict(recognizer.named_parameters())
    frozen = {name for name in names if not names[name].requires_grad}
    assert not any(name.startswith(("encoder.blocks.1.", "decoder.", "ctc.")) for name in frozen)
    assert all(name in frozen for name in names if name.startswith("encoder.subsampling.") and ".0." not in name)
    adapted(recognizer := build_recognizer(composed("finetune", *SMALL)["model"], 6), 0, True, rank=2, alpha=4.0)
    whole = {name for name, p in recognizer.named_parameters() if p.requires_grad and ".parametrizations." not in name}
    assert whole == {*VOCABULARY, "encoder.mask_embedding"}
