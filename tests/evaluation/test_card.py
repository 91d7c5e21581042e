"""A model card says what the report measured, its header is YAML that a hub reads."""

import json

import pytest
import yaml

from glmasr.bundle import open_bundle
from glmasr.evaluation.benchmark import Card, Heard, Outcome, Run, TestSet, summarize
from glmasr.evaluation.card import write_model_card
from glmasr.evaluation.conditions import Condition
from glmasr.evaluation.report import as_json, provenance
from glmasr.speech import InputError, Utterance
from glmasr.text.tokenizer import learn_characters
from tests.small import random_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "bundle"
    random_bundle(folder, learn_characters(["ab"]), language="en", utterances=8, **{"from": "runs/a|b"})
    return folder


@pytest.fixture
def report():
    def run(system, test_set, condition, *heard):
        rows = (Heard(f"u{i}", "en", *pair, 1.5, 0.1) for i, pair in enumerate(heard))
        return Run(system, test_set, condition, tuple(rows))

    runs = (
        run("ours", "set", "snr=10", ("a b c d", "a b c"), ("e f", "e f")),
        run("other", "set", "snr=10", ("a b c d", ""), ("e f", "")),
        run("ours", "silence", "clean", ("", "thank you")),
    )
    sets = (TestSet("set", [Utterance("u0", b"", 1.0, text="a", speaker="ann")], "snr=10", Condition(snr_db=10.0)),)
    results = tuple(summarize(one, metric, 100) for one in runs[:2] for metric in one.metrics)
    cards = (Card("ours", 3_360_000, 13_500_000), Card("other", 1, 1))
    outcome = Outcome(cards, runs, results, (), "data", 0, sets)
    return json.loads(json.dumps(as_json(outcome, provenance(outcome))))


def test_the_header_is_what_a_hub_reads(bundle, report):
    _, header, _ = write_model_card(bundle, "ours", report).read_text().split("---\n", 2)
    found = yaml.safe_load(header)
    assert found["pipeline_tag"] == "automatic-speech-recognition" and found["language"] == "en"
    (index,) = found["model-index"]
    rates = {result["metrics"][0]["type"]: result["metrics"][0]["value"] for result in index["results"]}
    assert rates["wer"] == 16.67 and found["metrics"] == ["cer", "wer"] and len(index["results"]) == 2


def test_the_card_gives_data_rates_conditions_and_limits(bundle, report):
    text = write_model_card(bundle, "ours", report).read_text()
    assert "3.36 M parameters" in text and "runs/a\\|b" in text and "utterances: 8" in text
    assert (
        "| set | snr=10 | WER | 16.7 % |" in text and "100.0 %" not in text.split("## Error rates")[1].split("\n|")[3]
    )
    assert "Accuracy at 10 dB SNR (1 − WER) on set: 83.3 %" in text
    assert "it wrote 80.0 words a minute" in text and "glmasr scoring" in text and "1 talkers at most" in text


def test_a_bundle_opens_as_before(bundle, report):
    before = open_bundle(bundle).digest()
    assert write_model_card(bundle, "ours", report) == bundle / "README.md"
    assert open_bundle(bundle).digest() == before and not list(bundle.glob(".*"))


def test_what_was_not_measured_gets_no_card(bundle, report):
    with pytest.raises(InputError, match="knows no system 'theirs'"):
        write_model_card(bundle, "theirs", report)
    with pytest.raises(InputError, match="is not a bundle"):
        write_model_card(bundle.parent, "ours", report)
