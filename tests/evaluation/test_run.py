"""The benchmark's config → systems and test sets."""

import json

import pytest

from glmasr.evaluation.baselines import find_weights
from glmasr.evaluation.run import as_list, build_systems, build_test_sets
from glmasr.frontend.audio import write_audio
from glmasr.speech import InputError

CONFIG = {"bundle": [], "whisper": [], "systems": [], "decoding": "ctc_greedy", "device": "cpu", "threads": 1}


def manifest(folder, rhyme_root, **fields):
    """A manifest of two real clips, with `fields` in each row."""
    from glmasr.frontend.audio import read_audio

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


def test_a_foreign_target_is_refused():
    with pytest.raises(InputError, match="refused"):
        build_systems(CONFIG | {"systems": [{"_target_": "os.system", "command": "true"}]})


def test_one_thing_or_several():
    assert as_list(None) == [] and as_list("a") == ["a"] and as_list(["a", "b"]) == ["a", "b"]
