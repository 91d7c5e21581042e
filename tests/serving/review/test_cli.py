"""`glmasr review`: recordings or transcripts in, pages out; a broken call is named and the others go on."""

import json
import sys

import numpy as np
import pytest
import soundfile

from glmasr import cli
from glmasr.speech import RATE_HZ
from glmasr.text.tokenizer import learn_characters
from tests.small import CONF, random_bundle


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Exit code (or last words), stdout and stderr of `glmasr review … --output out`."""

    def call(*arguments, rules=CONF / "review" / "sales.yaml"):
        there = ["--rules", str(rules), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["glmasr", "review", *there, *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, *capsys.readouterr()

    return call


def test_recordings_are_heard_channel_by_channel(run, tmp_path, spoken):
    random_bundle(tmp_path / "bundle", learn_characters(["abcdefgh ijk"]), language="en")
    calls = tmp_path / "calls"
    (calls / "monday").mkdir(parents=True)
    left, right = (clip.numpy()[:RATE_HZ] for clip in spoken[:2])
    both = np.stack([np.concatenate([left, 0 * right]), np.concatenate([0 * left, right])], 1)
    soundfile.write(calls / "monday" / "two.wav", both, RATE_HZ)
    soundfile.write(calls / "one.wav", left, RATE_HZ)
    (calls / "broken.wav").write_bytes(b"no audio")
    code, out, err = run(calls, "--bundle", tmp_path / "bundle")
    assert code == 1 and out.strip().endswith("review.html") and "broken.wav' is not audio" in err
    two = json.loads((tmp_path / "out" / "monday" / "two.review.json").read_text())
    assert [talk["speaker"] for talk in two["review"]["talk"]] == ["agent", "customer"]
    one = json.loads((tmp_path / "out" / "one.review.json").read_text())
    assert [talk["speaker"] for talk in one["review"]["talk"]] == [""]
    batch = json.loads((tmp_path / "out" / "review.json").read_text())
    assert {call["page"] for call in batch["calls"]} == {"monday/two.review.html", "one.review.html"}
    assert [failed["name"] for failed in batch["failed"]] == [str(calls / "broken.wav")]
    assert all((tmp_path / "out" / call["page"]).is_file() for call in batch["calls"])


def test_transcripts_need_no_bundle(run, tmp_path):
    told = {"text": "thank you for calling", "language": "en", "segments": []}
    (tmp_path / "call.json").write_text(json.dumps(told))
    (tmp_path / "bad.json").write_text("{}")
    code, _, err = run(tmp_path / "call.json", tmp_path / "bad.json")
    assert code == 1 and "bad.json' is no transcript" in err
    found = json.loads((tmp_path / "out" / "call.review.json").read_text())
    assert found["review"]["required"][0]["state"] == "said"


@pytest.mark.parametrize(
    ("arguments", "rules", "says"),
    [
        (["call.wav"], CONF / "review" / "sales.yaml", "nothing is named that could hear 'call.wav'"),
        (["a/call.json", "b/call.json"], CONF / "review" / "sales.yaml", "would both be written to"),
        (["call.json"], CONF / "none.yaml", "none.yaml' cannot be read"),
        (["call.json"], CONF / "plan.yaml", "plan.yaml': the file has"),
        (["call.wav", "--system", "gpt"], CONF / "review" / "sales.yaml", "'gpt' is no system to"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(run, arguments, rules, says):
    code = run(*arguments, rules=rules)[0]
    assert says in code and "\n" not in code
