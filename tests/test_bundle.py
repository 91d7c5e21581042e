"""A bundle comes back as written, appears whole, opens without the training libraries, and runs no one's code."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from glmasr.bundle import encoder_weights, open_bundle
from glmasr.speech import InputError
from glmasr.text.tokenizer import learn_characters, learn_pieces
from tests.small import ENCODER, REPOSITORY, SMALL, composed, random_bundle

TEXTS = ["please select the word went", "北京 is far", "it's a kit"]


@pytest.fixture
def folder(tmp_path):
    random_bundle(tmp_path / "bundle", learn_characters(TEXTS))
    return tmp_path / "bundle"


def edit(folder, **changes) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changes))


@pytest.mark.parametrize("tokenizer", [learn_characters(TEXTS), learn_pieces(TEXTS * 4, 290), None])
def test_what_is_saved_comes_back(tmp_path, tokenizer):
    weights = random_bundle(tmp_path / "b", tokenizer, language="zh", run="mine")
    bundle = open_bundle(tmp_path / "b")
    found = bundle.model.state_dict()
    assert list(found) == list(weights) and all(torch.equal(found[name], weights[name]) for name in weights)
    assert not bundle.model.training and bundle.config["training"] == {"language": "zh", "run": "mine"}
    assert bundle.ear.bins == 80 and bundle.size_bytes == sum(f.stat().st_size for f in (tmp_path / "b").iterdir())
    heads = ("ctc.", "decoder.")
    assert set(encoder_weights(bundle)) == {n.removeprefix("encoder.") for n in weights if not n.startswith(heads)}
    if tokenizer is None:
        with pytest.raises(InputError, match="fine-tune it first"):
            bundle.recognizer()
    else:
        ids = tokenizer.encode(TEXTS[0])
        assert bundle.tokenizer.encode(TEXTS[0]) == ids and bundle.tokenizer.decode(ids) == TEXTS[0]
        assert bundle.recognizer() is bundle.model and bundle.model.ctc.out_features == tokenizer.size


def test_the_digest_names_the_weights(tmp_path):
    random_bundle(tmp_path / "a", run="x")
    random_bundle(tmp_path / "b", run="y")
    digest = open_bundle(tmp_path / "a").digest()
    assert digest == open_bundle(tmp_path / "b").digest() and len(digest) == 16
    weights = load_file(tmp_path / "b" / "weights.safetensors")
    weights["mask_embedding"] += 1
    save_file(weights, tmp_path / "b" / "weights.safetensors")
    assert digest != open_bundle(tmp_path / "b").digest()


def test_there_is_never_half_a_bundle(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = open_bundle(folder).digest()
    monkeypatch.setattr("glmasr.bundle.save_file", full)
    with pytest.raises(OSError, match="No space"):
        random_bundle(folder, learn_characters(["other"]))
    monkeypatch.undo()
    assert open_bundle(folder).digest() == before
    random_bundle(folder)
    assert open_bundle(folder).tokenizer is None
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "weights.safetensors"}  # nothing of the old one
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_everyone_who_may_read_the_config_may_read_the_weights(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def cut_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_pieces(folder):
    (folder / "tokenizer.json").write_text('{"kind": "pieces"}')
    (folder / "tokenizer.model").write_bytes(learn_pieces(TEXTS * 4, 290).model[:-50])


def swap_vocabulary(folder):
    (folder / "tokenizer.json").write_text(json.dumps({"kind": "characters", "characters": ["a"]}))


DAMAGE = {
    "no config": (lambda f: (f / "config.yaml").unlink(), "is not a bundle: it has no config.yaml"),
    "no YAML": (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml is not readable YAML"),
    "other YAML": (lambda f: (f / "config.yaml").write_text("hello"), "not a bundle of format 1"),
    "other format": (lambda f: edit(f, format=99), "not a bundle of format 1"),
    "no kind": (lambda f: (f / "config.yaml").write_text("format: 1"), "is damaged"),
    "cut weights": (cut_weights, "is damaged .*: copy or train it again"),
    "empty weights": (lambda f: (f / "weights.safetensors").write_bytes(b""), "is damaged"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "is damaged"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "is damaged"),
    "cut tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"kind": "char'), "is damaged"),
    "other tokenizer": (swap_vocabulary, "is damaged"),
    "other size": (lambda f: edit(f, vocabulary_size=99), "is damaged .its tokenizer has"),
    "other shape": (lambda f: edit(f, model=composed("finetune", *ENCODER)["model"]), "do not fit its config.yaml"),
    "no text": (lambda f: (f / "config.yaml").write_bytes(b"\xff\xfe\x00"), "config.yaml is not readable"),
    "no pieces": (lambda f: (f / "tokenizer.json").write_text('{"kind": "pieces"}'), "is damaged"),
    "cut pieces": (cut_pieces, "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_bundle_is_one_sentence_that_names_it(folder, name):
    damage, sentence = DAMAGE[name]
    damage(folder)
    with pytest.raises(InputError, match=sentence) as caught:
        open_bundle(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a bundle"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "glmasr.bundle.shutil.rmtree",
        "glmasr.bundle.os.system",
        "glmasr.bundle.load_file",
        "glmasrevil.x",
    ],
)
@pytest.mark.parametrize("place", ["ear", "encoder", "decoder"])
def test_a_config_that_came_with_weights_runs_nothing_foreign(folder, target, place, tmp_path):
    evil, model = {"_target_": target, "command": f"touch {tmp_path}/pwned"}, composed("finetune", *SMALL)["model"]
    edit(folder, **({"ear": evil} if place == "ear" else {"model": model | {place: evil}}))
    with pytest.raises(InputError, match=r"refused|does not exist"):
        open_bundle(folder)
    assert not (tmp_path / "pwned").exists()


def test_a_bundle_opens_without_hydra_or_lightning(folder):
    code = (
        "import sys; from glmasr.transcriber import Transcriber; import numpy as np;"
        f"Transcriber({str(folder)!r})([np.zeros(8000, np.float32)]);"
        "foreign = {'hydra', 'omegaconf', 'pytorch_lightning', 'datasets', 'faster_whisper'};"
        "print(sorted({name.split('.')[0] for name in sys.modules} & foreign))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
