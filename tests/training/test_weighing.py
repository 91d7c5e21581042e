"""The weight of CTC is chosen by what dev hears, and only where something is heard."""

import pytest
import torch

from glmasr.build import build
from glmasr.bundle import build_recognizer
from glmasr.decoding.search import CTC_WEIGHTS, open_search
from glmasr.text.tokenizer import learn_characters
from glmasr.training.probing import loaded
from glmasr.training.weighing import best_weights, weigh_ctc
from tests.small import SMALL, composed

WEIGHTS = [0.0, 0.5, 1.0]


@pytest.fixture(scope="module")
def asked(catalog) -> dict:
    """A recognizer that knows nothing, an ear, and two real utterances."""
    torch.manual_seed(0)
    config, dev = composed("finetune", *SMALL), catalog.subset(split="dev", labelled=True)
    tokenizer = learn_characters(catalog.texts())
    recognizer = build_recognizer(config["model"], tokenizer.size)
    return {
        "recognizer": recognizer,
        "ear": build(config["frontend"]),
        "batches": loaded(dev, tokenizer),
        "tokenizer": tokenizer,
    }


def test_each_weight_is_judged_by_what_the_search_finds_with_it(asked):
    """Errors are made up from the texts, so that an untrained recognizer is not useless."""

    def errors_in(batch, texts):
        return sum(len(text) % 7 for text in texts), 7 * len(texts)

    tried = weigh_ctc(**asked, errors_in=errors_in, weights=WEIGHTS)
    assert list(tried) == list(CTC_WEIGHTS) and all(list(errors) == WEIGHTS for errors in tried.values())
    [batch] = asked["batches"]
    with torch.inference_mode():
        heard = asked["recognizer"](*asked["ear"](batch.waveform, batch.lengths))
        for name, errors in tried.items():
            for weight, share in errors.items():
                search = open_search({"name": name, "ctc_weight": weight}, asked["recognizer"], asked["tokenizer"])
                texts = [asked["tokenizer"].decode(best.tokens) for best, *_ in search(heard)]
                wrong, units = errors_in(batch, texts)
                assert share == wrong / units


def test_nothing_is_tried_where_there_is_nothing_to_choose(asked):
    def all_wrong(batch, texts):
        return len(texts), len(texts)

    assert weigh_ctc(**asked, errors_in=all_wrong, weights=WEIGHTS) == {}
    assert weigh_ctc(**asked, errors_in=lambda batch, texts: (0, 1), weights=[]) == {}
    config = composed("finetune", *SMALL, "model.decoder=null")
    alone = build_recognizer(config["model"], asked["tokenizer"].size)
    assert weigh_ctc(**asked | {"recognizer": alone}, errors_in=lambda *_: (0, 1), weights=WEIGHTS) == {}


def test_among_equals_the_usual_weight_is_nearest():
    tried = {"joint": {0.1: 0.2, 0.5: 0.1, 0.9: 0.1}, "rescore": {0.1: 0.3, 0.3: 0.3, 0.5: 0.4}}
    assert best_weights(tried) == {"joint": 0.9, "rescore": 0.3} and best_weights({}) == {}
