"""The benchmark's config → systems and test sets."""

import json

import numpy as np
import pytest

from glmasr.evaluation.baselines import find_weights
from glmasr.evaluation.run import as_list, build_conditions, build_systems, build_test_sets, run_benchmark, spread
from glmasr.evaluation.systems import Limited
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.speech import InputError
from glmasr.text.tokenizer import learn_characters
from tests.small import CONF, composed, random_bundle

CONFIG = composed("benchmark") | {"bundle": [], "whisper": [], "threads": 1}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles of random weights whose run folders have one name."""
    home = tmp_path_factory.mktemp("bundles")
    for arm in ("a", "b"):
        random_bundle(home / arm / "seed0" / "bundle", learn_characters(["abcd efgh"]), language="en")
    return home


def test_the_default_is_one_clean_test_set():
    assert (CONFIG["conditions"], CONFIG["grid"], CONFIG["silence"]) == ([{}], None, 0)


def manifest(folder, rhyme_root, **fields):
    """A manifest of two real clips, with `fields` in each row."""
    rows = []
    for clip in sorted((rhyme_root / "rhyme_test" / "audio").glob("*.flac"))[:2]:
        waveform = read_audio(str(clip))
        write_audio(folder / clip.name, waveform)
        row = {"audio_filepath": clip.name, "duration": len(waveform) / 16000, "text": "please select the word went"}
        rows.append(row | fields)
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize("fields, count", [({}, 2), ({"split": "test"}, 2), ({"split": "holdout"}, 2)])
def test_a_manifest_without_the_split_is_used_whole(tmp_path, rhyme_root, fields, count):
    config = CONFIG | {
        "manifest": manifest(tmp_path, rhyme_root, **fields),
        "catalogs": str(tmp_path / "catalogs"),
        "split": "test",
        "max_utterances": None,
    }
    (test_set,) = build_test_sets(config)
    assert len(test_set.utterances) == count
    assert len(build_test_sets(config | {"max_utterances": 1})[0].utterances) == 1


def test_two_systems_of_one_name_are_refused():
    try:
        find_weights("tiny.en")
    except InputError as error:
        pytest.skip(str(error))
    with pytest.raises(InputError, match=r"two systems are called 'whisper-tiny.en'"):
        build_systems(CONFIG | {"whisper": ["tiny.en", "tiny.en"]})


def test_two_bundles_of_one_name_are_refused_and_may_be_named(bundles):
    folders = [str(bundles / arm / "seed0" / "bundle") for arm in ("a", "b")]
    with pytest.raises(InputError, match=r"two systems are called 'seed0'.*bundle=\{ours:"):
        build_systems(CONFIG | {"bundle": folders})
    systems = build_systems(CONFIG | {"bundle": dict(zip(("ours", "theirs"), folders, strict=True))})
    assert [system.name for system in systems] == ["ours", "theirs"]


def test_what_is_no_bundle_is_found_before_anything_is_measured(bundles, tmp_path):
    with pytest.raises(InputError, match="is not a bundle"):
        build_systems(CONFIG | {"bundle": [str(bundles / "a" / "seed0" / "bundle"), str(tmp_path)]})


def test_a_time_limit_is_put_around_what_listens(bundles, tmp_path):
    (tmp_path / "heard.jsonl").write_text('{"id": "u", "pred_text": "a"}\n')
    recorded = {"_target_": "glmasr.evaluation.systems.Recorded", "path": str(tmp_path / "heard.jsonl")}
    config = CONFIG | {"bundle": str(bundles / "a" / "seed0" / "bundle"), "systems": [recorded]}
    ours, file = build_systems(config | {"utterance_timeout_seconds": 5.0})
    assert isinstance(ours, Limited) and ours.name == "seed0" and hasattr(file, "recall")


def test_fewer_utterances_are_taken_evenly():
    rows = list(range(10))
    assert spread(rows, None) == spread(rows, 10) == rows and spread(rows, 4) == [0, 2, 5, 7]


def test_half_of_a_split_is_kept_for_choices(tmp_path, rhyme_root):
    config = CONFIG | {"manifest": manifest(tmp_path, rhyme_root), "catalogs": str(tmp_path / "catalogs")}
    whole, even, odd = (build_test_sets(config | {"positions": p})[0].utterances for p in (None, "even", "odd"))
    assert [whole[0::2], whole[1::2]] == [even, odd] and odd


def test_gain_is_a_choice_for_ours_and_for_a_system_in_the_list(bundles):
    folder = str(bundles / "a" / "seed0" / "bundle")
    listed = [
        {"_target_": "glmasr.transcriber.Transcriber", "bundle": folder, "name": name, "gain": gain}
        for name, gain in (("on", True), ("lifted", {"slope": 1.0}))
    ]
    systems = list(build_systems(CONFIG | {"bundle": folder, "systems": listed}))
    assert [getattr(system.gain, "slope", None) for system in systems] == [None, 0.0, 1.0]
    [ours] = build_systems(CONFIG | {"bundle": folder, "gain": True})
    assert ours.gain == systems[1].gain and len({system.fingerprint for system in systems}) == 3


def test_a_foreign_target_is_refused():
    with pytest.raises(InputError, match="refused"):
        list(build_systems(CONFIG | {"systems": [{"_target_": "os.system", "command": "true"}]}))


def test_one_thing_or_several():
    assert as_list(None) == [] and as_list("a") == ["a"] and as_list(["a", "b"]) == ["a", "b"]


def test_conditions_and_grid_make_test_sets(tmp_path, rhyme_root):
    noise = tmp_path / "noise"
    noise.mkdir()
    write_audio(noise / "hum.wav", np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32))
    config = CONFIG | {"manifest": manifest(tmp_path, rhyme_root), "catalogs": str(tmp_path / "catalogs")}
    config |= {"conditions": [{}, {"snr_db": 10}], "grid": {"snr": [10, 0], "level": [-20]}, "silence": 2}
    config |= {"noise": {"path": str(noise), "clips": ["*"]}}
    sets = build_test_sets(config)
    assert [one.condition for one in sets] == ["clean", "snr=10", "snr=0", "level=-20", "clean", "clean"]
    silence, alone = sets[4:]
    assert [u.duration_seconds for u in silence.scored()] == [1, 2] and not read_audio(
        silence.utterances[0].audio
    ).any()
    assert [u.id for u in alone.scored()] == ["hum"] and np.abs(read_audio(alone.utterances[0].audio)).max() > 0.1
    with pytest.raises(InputError, match="did you mean 'level'"):
        build_test_sets(config | {"grid": {"levels": [-20]}})


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment" / "benchmark").glob("*.yaml")))
def test_the_conditions_of_every_experiment_can_be_made(tmp_path, experiment):
    for clip in ("1-a", "5-b"):
        write_audio(tmp_path / f"{clip}.wav", np.full(1600, 0.1, np.float32))
    made = build_conditions(composed("benchmark", f"experiment/benchmark={experiment}", f"noise.path={tmp_path}"))
    assert made[0].name == "clean" and len(made) > 7
    assert all(condition.clips for condition in made if condition.snr_db is not None)


def test_the_whole_way(tmp_path, rhyme_root, bundles, capsys):
    config = CONFIG | {
        "manifest": manifest(tmp_path, rhyme_root, speaker="ann"),
        "catalogs": str(tmp_path / "catalogs"),
        "run_dir": str(tmp_path / "run"),
        "bundle": {"ours": str(bundles / "a" / "seed0" / "bundle")},
        "conditions": [{}, {"level_db": -20}],
        "silence": 1,
        "write_card": True,
    }
    run_benchmark(config)
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    first, second = report["test_sets"][:2]
    assert len(first["samples_sha256"]) == 64 and first["samples_sha256"] != second["samples_sha256"]
    assert report["provenance"]["config"]["silence"] == 1 and report["systems"][0]["latency_seconds"] > 0
    assert (bundles / "a" / "seed0" / "bundle" / "README.md").exists()
    said = capsys.readouterr()
    assert "manifest (level=-20) WER ours:" in said.out or "(level=-20) WER ours:" in said.out
    assert "wrote" in said.err and "README.md" in said.err
