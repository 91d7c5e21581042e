"""Every search opens by its name and from its YAML with the same defaults, finds texts, and says what it lacks."""

import dataclasses

import pytest
import torch
import yaml

from glmasr.bundle import Bundle, open_bundle
from glmasr.decoding.search import CTC_WEIGHTS, SEARCHES, Joint, open_search
from glmasr.model.recognizer import Heard, Recognizer
from glmasr.speech import InputError
from glmasr.text.tokenizer import BOUNDARY, CharacterTokenizer, learn_characters
from tests.decoding import brute
from tests.small import CONF, random_bundle

CONFIGS = {name: yaml.safe_load((CONF / "decoding" / f"{name}.yaml").read_text()) for name in SEARCHES}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    random_bundle(folder, learn_characters(["please select the word 格力"]))
    return open_bundle(folder)


@pytest.fixture(scope="module")
def heard(bundle, spoken_batch) -> Heard:
    with torch.inference_mode():
        return bundle.recognizer()(*bundle.ear(*spoken_batch))


def opened(bundle: Bundle, config):
    return open_search(config, bundle.recognizer(), bundle.tokenizer)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_yaml_is_the_signature(bundle, name):
    by_name, by_yaml = opened(bundle, name), opened(bundle, CONFIGS[name])
    assert type(by_name) is type(by_yaml)
    for one in dataclasses.fields(by_name):
        assert one.name in {*CONFIGS[name], "recognizer", "tokenizer"}
        values = [getattr(search, one.name) for search in (by_name, by_yaml)]
        assert list(values[0]) == values[1] if one.name == "hotwords" else values[0] == values[1]


def test_the_folder_has_no_search_without_a_name():
    assert {path.stem for path in (CONF / "decoding").glob("*.yaml")} - {"streaming"} == set(SEARCHES)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_finds_the_same_in_a_batch_and_alone(bundle, heard, name):
    search = opened(bundle, name)
    together = search(heard)
    assert len(together) == len(heard.lengths)
    for row, length in enumerate(heard.lengths.tolist()):
        scores = [one.score for one in together[row]]
        assert (
            scores
            and scores == sorted(scores, reverse=True)
            and len({one.tokens for one in together[row]}) == len(scores)
        )
        one = slice(row, row + 1)
        tensors = heard.context[one, :length], heard.lengths[one], heard.padding[one, :length]
        alone = search(Heard(*tensors, heard.ctc_log_probs[one, :length]))[0][0]
        assert alone.tokens == together[row][0].tokens and alone.score == pytest.approx(scores[0], abs=1e-3)


@pytest.mark.parametrize("name", ["ctc_beam", "attention", "joint", "rescore"])
def test_hotwords_and_their_weight_arrive(bundle, heard, name):
    plain, wanted = opened(bundle, name), opened(bundle, {**CONFIGS[name], "hotwords": ["格"], "hotword_weight": 60.0})
    token = bundle.tokenizer.encode("格")[0]
    counts = [search(heard)[0][0].tokens.count(token) for search in (plain, wanted)]
    assert counts[1] > counts[0]


def test_joint_lies_between_ctc_and_attention(bundle, heard):
    ends = [opened(bundle, {**CONFIGS["joint"], "ctc_weight": weight})(heard) for weight in (0.0, 1.0)]
    attention = opened(bundle, "attention")(heard)
    assert [one[0] for one in ends[0]] == [one[0] for one in attention]
    for row, length in enumerate(heard.lengths.tolist()):
        best = ends[1][row][0]
        assert BOUNDARY not in best.tokens
        assert best.score == pytest.approx(brute.exact(heard.ctc_log_probs[row, :length], best.tokens), abs=1e-3)


def test_the_weight_of_ctc_is_what_is_asked_or_what_the_bundle_says_or_the_usual(bundle, tmp_path):
    def weights(one: Bundle, **asked) -> list[float]:
        return [opened(one, {"name": name, **asked}).weight for name in CTC_WEIGHTS]

    random_bundle(tmp_path / "said", bundle.tokenizer, ctc_weights={"joint": 0.1})
    said = open_bundle(tmp_path / "said")
    assert weights(bundle) == [0.8, 0.3] and weights(said) == [0.1, 0.3]
    assert weights(said, ctc_weight=0.5) == [0.5, 0.5]
    random_bundle(tmp_path / "broken", bundle.tokenizer, ctc_weights={"joint": "much"})
    with pytest.raises(InputError, match="ctc_weight much is not a share"):
        opened(open_bundle(tmp_path / "broken"), "joint")


@pytest.mark.parametrize("name", ["attention", "joint", "rescore"])
def test_without_a_decoder_it_says_what_to_use(bundle, name):
    whole = bundle.recognizer()
    bare = Recognizer(whole.encoder, None, bundle.tokenizer.size)
    with pytest.raises(InputError, match=rf"{name} .* use ctc_beam"):
        open_search(name, bare, bundle.tokenizer)
    assert open_search("ctc_beam", bare, bundle.tokenizer)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("joynt", "ctc_greedy, ctc_beam, attention, joint, rescore"),
        ({**CONFIGS["joint"], "ctc_weigt": 1}, "did you mean 'ctc_weight'"),
        ({**CONFIGS["joint"], "ctc_weight": 1.5}, "0 .* to 1"),
        ({**CONFIGS["ctc_beam"], "beam": 0}, "1 or more"),
        ({**CONFIGS["ctc_beam"], "tokens": 0}, "tokens 0 .* 1 or more"),
        ({**CONFIGS["rescore"], "tokens": -1}, "tokens -1 .* 1 or more"),
        ({**CONFIGS["ctc_beam"], "lm": "nowhere.arpa"}, "nowhere.arpa"),
        ({**CONFIGS["rescore"], "hotwords": ["ß"]}, "hotword"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_heard(bundle, config, said):
    with pytest.raises(InputError, match=said):
        opened(bundle, config)


def test_settings_cannot_be_changed_behind_its_back(bundle):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Joint(bundle.recognizer(), bundle.tokenizer).beam = 3  # type: ignore[misc]
    assert isinstance(bundle.tokenizer, CharacterTokenizer)
