"""The benchmark counts what it should, survives interruption and crashes, and does not mix up systems."""

import time

import numpy as np
import pytest

from glmasr.evaluation import benchmark as bench
from glmasr.evaluation.bootstrap import holm
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


def make_test_set(texts=TEXTS, name="set", condition="clean", speakers=("",), language="en"):
    utterances = [
        Utterance(f"u{i}", str(i), 1.0 + i / 4, text=text, language=language, speaker=speakers[i % len(speakers)])
        for i, text in enumerate(texts)
    ]
    return bench.TestSet(name, utterances, condition)


def drop_last_word(index, text):
    return " ".join(text.split()[:-1])


def test_rates_comparisons_and_order(tmp_path):
    systems = [Fake("good"), Fake("bad", drop_last_word)]
    outcome = bench.benchmark(systems, [make_test_set(), make_test_set(condition="snr=5")], tmp_path)
    order = [("good", "clean"), ("bad", "clean"), ("good", "snr=5"), ("bad", "snr=5")]
    assert [(run.system, run.condition) for run in outcome.runs] == order
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


def test_intervals_by_speaker_need_two_known_speakers(tmp_path):
    def results(name, speakers):
        run = bench.evaluate(Fake("fake", drop_last_word), make_test_set(name=name, speakers=speakers), tmp_path)
        return bench.summarize(run, "wer")

    both = results("two", ("ann", "bob"))
    assert both.speakers == 2 and both.speaker_low < both.value < both.speaker_high
    assert (both.speaker_low, both.speaker_high) != (both.low, both.high)
    for name, speakers in {"one": ("ann",), "none": ("",), "some": ("ann", "bob", "")}.items():
        assert (results(name, speakers).speakers, results(name, speakers).speaker_low) == (0, None)


def test_speakers_are_known_of_what_was_heard_before_they_were_kept(tmp_path):
    bench.evaluate(Fake(), make_test_set(), tmp_path)
    again = Fake()
    run = bench.evaluate(again, make_test_set(speakers=("ann", "bob")), tmp_path)
    assert again.calls == [] and [h.speaker for h in run.heard[:3]] == ["ann", "bob", "ann"]


def test_p_values_are_corrected_for_all_comparisons(tmp_path):
    systems = [Fake("good"), Fake("bad", drop_last_word), Fake("same")]
    outcome = bench.benchmark(systems, [make_test_set(), make_test_set(condition="snr=5")], tmp_path)
    found = outcome.comparisons
    assert [c.p_holm for c in found] == holm([c.p_value for c in found])
    differing = next(c for c in found if (c.a, c.b, c.metric) == ("good", "bad", "cer"))
    assert differing.p_holm > differing.p_value and 0 < differing.p_mapsswe < 0.05 and differing.words_needed > 13
    equal = next(c for c in found if (c.a, c.b) == ("good", "same"))
    assert (equal.delta, equal.p_mapsswe, equal.words_needed) == (0.0, 1.0, None)


@pytest.mark.parametrize(
    ("language", "texts", "metrics"),
    [
        ("en", ["red", "green"], ("wer", "cer")),
        ("zh", ["你好", "再见"], ("cer", "wer", "ser")),
        ("yue", ["nei5 hou2", "zoi3 gin3"], ("ser", "wer", "cer")),
        ("zh", ["打开 wifi", "你好"], ("cer", "wer", "mer", "ser")),
    ],
)
def test_a_test_set_is_known_by_the_metric_of_its_language(tmp_path, language, texts, metrics):
    heard = tuple(bench.Heard(str(i), language, text, text, 1.0, 0.1) for i, text in enumerate(texts))
    run = bench.Run("fake", "set", "clean", heard)
    assert run.metrics == metrics and set(run.counts) == set(metrics)


def test_a_system_of_one_language_hears_no_other(tmp_path):
    english, chinese = make_test_set(), make_test_set(["你好"], "chinese", language="zh")
    only = Fake("only")
    only.languages = ("en",)
    outcome = bench.benchmark([Fake(), only], [english, chinese], tmp_path)
    assert {(r.system, r.test_set) for r in outcome.runs} == {("fake", "set"), ("fake", "chinese"), ("only", "set")}
    named = bench.benchmark([Fake()], [english, chinese], tmp_path, hears={"fake": ["chinese"], "other": []})
    assert [run.test_set for run in named.runs] == ["chinese"]
    outcome = bench.benchmark([Fake(), only], [chinese], tmp_path)
    assert [card.name for card in outcome.systems] == ["fake"]


def test_silence_has_no_rate_but_words(tmp_path):
    outcome = bench.benchmark([Fake()], [make_test_set(), make_test_set(["", ""], "silence")], tmp_path)
    assert {r.test_set for r in outcome.results} == {"set"}
    assert outcome.runs[1].is_silent and outcome.runs[1].written == [4, 2]


def test_systems_are_built_one_at_a_time_and_their_cost_is_kept(tmp_path):
    alive, most = set(), []

    class Heavy(Fake):
        def __init__(self, name):
            super().__init__(name, seconds=0.01)
            self.weights = np.ones(1 << 24, dtype=np.uint8)
            alive.add(name)
            most.append(len(alive))

        def __del__(self):
            alive.discard(self.name)

    def build():
        yield Heavy("one")
        yield Heavy("two")

    cards = bench.benchmark(build(), [make_test_set()], tmp_path).systems
    assert most == [1, 1] and [card.name for card in cards] == ["one", "two"]
    for card in cards:
        assert card.peak_bytes is None or card.peak_bytes > 1 << 24
        assert 0.01 <= card.latency_seconds < 0.05 and card.rtf > 0
    again = bench.benchmark([Fake("one"), Fake("two")], [make_test_set()], tmp_path).systems
    assert again == cards  # the same system, by its name, sizes and fingerprint: nothing is measured anew
    changed = bench.benchmark([Fake("one", fingerprint="other", seconds=0.05)], [make_test_set()], tmp_path).systems
    assert changed[0].latency_seconds >= 0.05


def test_what_is_recalled_is_recalled_by_utterance_and_for_its_own_condition(tmp_path):
    class Recalled(Fake):
        condition = "snr=5"

        def __call__(self, waveforms):
            raise AssertionError("listened")

        def recall(self, utterances):
            return [Transcript(f"heard {u.id}", u.duration_seconds) for u in utterances]

    sets = [make_test_set(), make_test_set(condition="snr=5")]
    outcome = bench.benchmark([Fake("live"), Recalled("file")], sets, tmp_path)
    assert [(run.system, run.condition) for run in outcome.runs] == [
        ("live", "clean"),
        ("live", "snr=5"),
        ("file", "snr=5"),
    ]
    assert outcome.runs[2].heard[1].hypothesis == "heard u1" and outcome.systems[1].latency_seconds is None
    assert outcome.systems[1].rtf is None and outcome.systems[1].peak_bytes is None


@pytest.mark.parametrize("names", [("a", "a.set"), ("a b", "a_b"), ("ref", "other")])
def test_systems_whose_files_would_be_one_are_refused(tmp_path, names):
    with pytest.raises(InputError, match="a name of its own"):
        bench.benchmark([Fake(name) for name in names], [make_test_set()], tmp_path)
