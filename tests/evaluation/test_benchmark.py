"""The benchmark counts what it should, survives interruption and crashes, and does not mix up systems."""

import time

import numpy as np
import pytest

from glmasr.evaluation import benchmark as bench
from glmasr.speech import InputError, Transcript, Utterance

TEXTS = ["red green blue white", "black gray", "pink", "brown cyan olive", "gold silver", "purple"]


class Fake:
    """Says back the text whose number is the waveform's first sample, spoiled by `spoil`."""

    def __init__(self, name="fake", spoil=lambda index, text: text, seconds=0.0, fingerprint=""):
        self.name, self.parameters, self.size_bytes, self.fingerprint = name, 10, 20, fingerprint
        self.spoil, self.seconds = spoil, seconds
        self.calls: list[list[int]] = []

    def __call__(self, waveforms):
        indices = [round(float(waveform[0])) for waveform in waveforms]
        self.calls.append(indices)
        time.sleep(self.seconds)
        return [Transcript(self.spoil(i, TEXTS[i]), len(w) / 16000) for i, w in zip(indices, waveforms, strict=True)]


@pytest.fixture(autouse=True)
def _audio_is_a_number(monkeypatch):
    def read(source, offset_seconds=0.0, duration_seconds=None, rate_hz=16000):
        return np.full(round(duration_seconds * rate_hz), int(source), dtype=np.float32)

    monkeypatch.setattr(bench, "read_audio", read)


def make_test_set(texts=TEXTS, name="set", condition="clean"):
    utterances = [Utterance(f"u{i}", str(i), 1.0 + i / 4, text=text, language="en") for i, text in enumerate(texts)]
    return bench.TestSet(name, utterances, condition)


def drop_last_word(index, text):
    return " ".join(text.split()[:-1])


def test_rates_comparisons_and_order(tmp_path):
    systems = [Fake("good"), Fake("bad", drop_last_word)]
    outcome = bench.benchmark(systems, [make_test_set(), make_test_set(condition="snr=5")], tmp_path)
    found = {(r.system, r.condition, r.metric): r for r in outcome.results}
    assert len(found) == len(outcome.results) == 8
    bad = found["bad", "snr=5", "wer"]
    assert (bad.value, bad.words) == (pytest.approx(6 / 13), 13)
    assert bad.low < bad.value < bad.high
    assert found["good", "clean", "cer"].value == 0.0
    assert [(c.a, c.b, c.condition, c.metric) for c in outcome.comparisons][:2] == [
        ("good", "bad", "clean", "wer"),
        ("good", "bad", "clean", "cer"),
    ]
    assert outcome.comparisons[0].delta == pytest.approx(-6 / 13)
    assert [h.id for h in outcome.runs[0].heard] == [f"u{i}" for i in range(6)]


def test_only_the_calls_are_timed_and_the_first_is_thrown_away(tmp_path):
    system = Fake(seconds=0.05)
    run = bench.evaluate(system, make_test_set(), tmp_path, group=4)
    assert system.calls == [[0], [0, 1, 2, 3], [4, 5]]
    audio = sum(1 + i / 4 for i in range(6))
    assert run.rtf == pytest.approx(0.1 / audio, rel=0.5)
    assert sum(h.compute_seconds for h in run.heard[:4]) == pytest.approx(0.05, rel=0.5)


def test_interrupted_and_started_again(tmp_path):
    def stop(index, text):
        if index == 4:
            raise KeyboardInterrupt
        return text

    with pytest.raises(KeyboardInterrupt):
        bench.evaluate(Fake(spoil=stop, seconds=0.05), make_test_set(), tmp_path, group=2)
    journal = tmp_path / "utterances" / "fake.set.jsonl"
    with journal.open("a") as file:
        file.write('{"id": "u4", "langu')  # what a kill leaves behind
    again = Fake()
    run = bench.evaluate(again, make_test_set(), tmp_path, group=2)
    assert again.calls == [[4], [4, 5]]
    assert [h.hypothesis for h in run.heard] == TEXTS
    assert sum(h.compute_seconds for h in run.heard[:4]) > 0.09  # the time of the first start is kept
    third = Fake()
    assert bench.evaluate(third, make_test_set(), tmp_path) == run
    assert third.calls == []


@pytest.mark.parametrize("change", ["system", "reference"])
def test_results_of_another_state_are_not_taken_over(tmp_path, change):
    bench.evaluate(Fake(fingerprint="a"), make_test_set(), tmp_path)
    again = Fake(fingerprint="b" if change == "system" else "a")
    texts = TEXTS if change == "system" else [*TEXTS[:-1], "changed"]
    run = bench.evaluate(again, make_test_set(texts), tmp_path, group=6)
    assert again.calls == [[0], [0, 1, 2, 3, 4, 5]]
    assert run.heard[-1].reference == texts[-1]


def test_a_crash_costs_one_hypothesis(tmp_path):
    def crash(index, text):
        if index == 2:
            raise RuntimeError("out of <memory>")
        return text

    outcome = bench.benchmark([Fake("shaky", crash)], [make_test_set()], tmp_path)
    run = outcome.runs[0]
    assert [h.hypothesis for h in run.heard] == [*TEXTS[:2], "", *TEXTS[3:]]
    assert (run.failures, run.heard[2].failure) == (1, "RuntimeError: out of <memory>")
    assert outcome.results[0].value == pytest.approx(1 / 13)


def test_a_wrong_number_of_transcripts_is_a_crash(tmp_path):
    class Short(Fake):
        def __call__(self, waveforms):
            return super().__call__(waveforms)[:1]

    assert [h.hypothesis for h in bench.evaluate(Short(), make_test_set(), tmp_path).heard] == TEXTS


def test_what_the_user_must_mend_stops_the_benchmark(tmp_path):
    def refuse(index, text):
        raise InputError("no weights: give a folder")

    with pytest.raises(InputError, match="no weights"):
        bench.evaluate(Fake(spoil=refuse), make_test_set(), tmp_path)
    with pytest.raises(InputError, match="'set' has no transcribed utterance"):
        bench.evaluate(Fake(), make_test_set([None, None]), tmp_path)
    with pytest.raises(InputError, match="two utterances with one id"):
        bench.TestSet("set", [Utterance("a", "0", 1.0, text="x")] * 2).scored()
    with pytest.raises(InputError, match="a name of its own"):
        bench.benchmark([Fake("one"), Fake("one")], [make_test_set()], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        bench.evaluate(Fake(), make_test_set(), tmp_path / "file")


def test_utterances_without_text_are_left_out(tmp_path):
    run = bench.evaluate(Fake(), make_test_set([TEXTS[0], None, TEXTS[2]]), tmp_path)
    assert [h.id for h in run.heard] == ["u0", "u2"]
