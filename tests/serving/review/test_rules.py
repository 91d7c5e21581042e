"""Rule files: the examples are read, and every mistake in one is a sentence that names it."""

import pytest

from glmasr.serving.review.rules import Llm, read_rules, rules_of
from glmasr.speech import InputError
from tests.small import CONF

RULE = {"name": "promise", "phrases": ["no risk"]}


@pytest.mark.parametrize("path", sorted((CONF / "review").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_rules(path):
    rules = read_rules(path)
    assert rules.required and rules.language and len(rules.speakers) == 2
    assert (rules.llm is not None) == (path.stem == "llm"), "only the example for it may send words anywhere"


def test_what_is_written_is_what_is_looked_for():
    rules = rules_of({"sensitive": [{**RULE, "match": "fuzzy", "severity": "high"}], "silence_seconds": 4})
    assert rules.sensitive[0].match == ("fuzzy",) and rules.sensitive[0].severity == "high"
    assert rules.silence_seconds == 4 and rules.llm is None and rules.required == ()
    assert rules_of({"llm": {"url": "http://a/v1", "model": "m"}}).llm == Llm("http://a/v1", "m")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (["a"], "the file is no list of 'name: value' lines"),
        ({"sensitiv": []}, "'sensitiv', which is none of sensitive, required"),
        ({"sensitive": {"name": "a"}}, "sensitive is no list"),
        ({"sensitive": [{"phrases": ["a"]}]}, "sensitive rule '1' has no name"),
        ({"required": [{"name": "a"}]}, "required rule 'a' has no phrases"),
        ({"sensitive": [{**RULE, "match": ["sounds"]}]}, "rule 'promise': match sounds is unknown: choose among exact"),
        ({"sensitive": [{**RULE, "phrases": [1]}]}, "put numbers and yes or no in quotes"),
        ({"sensitive": [{**RULE, "phrases": ["…"]}]}, "phrase '…' holds no word"),
        ({"language": "en", "sensitive": [{**RULE, "phrases": ["um"]}]}, "phrase 'um' holds no word"),
        ({"sensitive": [{**RULE, "phrases": []}]}, "it has no phrase"),
        ({"sensitive": [{**RULE, "severity": "grave"}]}, "severity 'grave' is unknown"),
        ({"sensitive": [{**RULE, "least_score": 0.2}]}, "least_score=0.2 is no share"),
        ({"sensitive": [{**RULE, "by_seconds": 5}]}, "only a required rule has by_seconds"),
        ({"required": [{**RULE, "by_seconds": "soon"}]}, "by_seconds is a number from 0 on, not 'soon'"),
        ({"required": [{**RULE, "by_seconds": True}]}, "not 'True'"),
        ({"required": [{**RULE, "by_seconds": 0}]}, "by_seconds=0 is no deadline"),
        ({"required": [{**RULE, "speaker": "agent"}]}, "speaker 'agent' is nobody's name"),
        ({"required": [RULE], "sensitive": [RULE]}, "two rules are named 'promise'"),
        ({"context_words": 1.5}, "context_words is a whole number"),
        ({"silence_seconds": float("nan")}, "silence_seconds is a number"),
        ({"llm": {"url": "file:///etc/passwd", "model": "m"}}, "is no web address"),
        ({"llm": {"url": "http://a"}}, "llm has no model"),
        ({"llm": "http://a"}, "llm is no list of 'name: value' lines"),
    ],
)
def test_a_mistake_is_one_sentence(found, says):
    with pytest.raises(InputError) as raised:
        rules_of(found)
    assert says in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sensitive: [", "is no YAML"),
        ("sensitive: !!python/object/apply:os.system ['true']", "is no YAML"),
        ("a: \x01", "is no YAML"),
        ("language: zz\nbad: 1", "rules.yaml': the file has 'bad'"),
        ("", "the file is no list of"),
    ],
)
def test_a_file_is_named_with_its_mistake(tmp_path, text, says):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(InputError, match=r"rules\.yaml") as raised:
        read_rules(tmp_path / "rules.yaml")
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_aliases_that_grow_without_bound_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "rules.yaml").write_text("\n".join([*lines, "language: *a11"]))
    with pytest.raises(InputError):
        read_rules(tmp_path / "rules.yaml")
    (tmp_path / "rules.yaml").write_text("language: &a [*a]")
    with pytest.raises(InputError):
        read_rules(tmp_path / "rules.yaml")


def test_a_missing_or_endless_file_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_rules(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(InputError, match="larger than 1 MB"):
        read_rules(tmp_path / "big.yaml")
