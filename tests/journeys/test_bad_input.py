"""What a user may get wrong ends in one sentence that names it and the remedy, a non-zero exit, and no traceback."""

import shutil
import sys

import pytest

from glmasr import cli
from glmasr.build import build
from glmasr.data.catalog import prepare_catalog
from glmasr.text.tokenizer import learn_characters
from tests.small import REPOSITORY, SMALL, composed, random_bundle


@pytest.fixture
def complaint(monkeypatch, capfd, tmp_path):
    """The sentence with which scripts/<verb>.py ends, run in this process from an empty folder."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    monkeypatch.chdir(tmp_path)

    def complain(verb, *overrides):
        script = __import__(verb)
        monkeypatch.setattr(sys, "argv", [f"{verb}.py", *SMALL * (verb != "benchmark"), *overrides])
        with pytest.raises(SystemExit) as end:
            script.open_door(verb, getattr(script, verb))
        assert isinstance(end.value.code, str)  # printed to stderr, exit code 1
        printed = "".join(capfd.readouterr())
        assert "Traceback" not in printed + end.value.code and "\n" not in end.value.code
        assert end.value.code.startswith("glmasr")
        return end.value.code

    return complain


def recordings(corpus, folder, count=3):
    """A folder of its own with a few of the corpus' recordings and their transcripts."""
    folder.mkdir()
    for file in sorted((corpus / "train").rglob("*.flac"))[:count]:
        shutil.copy(file, folder)
        shutil.copy(file.with_suffix(".txt"), folder)
    return folder


def test_a_missing_folder(complaint, tmp_path):
    for verb in ("pretrain", "finetune", "benchmark"):
        said = complaint(verb, "data=folder", f"data.path={tmp_path}/nowhere", *["bundle=null"] * (verb == "finetune"))
        assert f"the folder '{tmp_path}/nowhere' does not exist; check data.path" in said


def test_an_empty_folder(complaint, tmp_path):
    (tmp_path / "empty").mkdir()
    said = complaint("pretrain", "data=folder", f"data.path={tmp_path}/empty")
    assert f"there is no recording (wav, flac, mp3, ogg, oga, opus…) under '{tmp_path}/empty'; check data.path" in said


def test_a_text_file_named_wav(complaint, corpus, tmp_path):
    folder = recordings(corpus, tmp_path / "mixed")
    (folder / "fake.wav").write_text("this is no sound")
    said = complaint("pretrain", "data=folder", f"data.path={folder}")
    assert "1 of 4 recordings" in said and f"'{folder}/fake.wav' is not audio" in said and "convert it to WAV" in said


def test_a_transcript_with_no_audio_is_named_and_the_rest_is_used(corpus, tmp_path, capfd):
    """Alone it makes an empty folder; beside recordings it is listed, and nothing fails."""
    folder = recordings(corpus, tmp_path / "mixed")
    (folder / "orphan.txt").write_text("please select the word nobody")
    data = composed("pretrain", "data=folder", f"data.path={folder}")["data"]
    assert len(prepare_catalog(build(data), str(tmp_path / "catalogs"))) == 3
    said = capfd.readouterr().err
    assert "skipped 1 (transcript without audio 1), listed in" in said and str(tmp_path / "catalogs") in said
    assert str(folder / "orphan.txt") in next((tmp_path / "catalogs").rglob("skipped.tsv")).read_text()


def test_transcripts_with_no_audio_at_all(complaint, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "orphan.txt").write_text("please select the word nobody")
    said = complaint("finetune", "bundle=null", "data=folder", f"data.path={tmp_path}/texts")
    assert f"there is no recording (wav, flac, mp3, ogg, oga, opus…) under '{tmp_path}/texts'; check data.path" in said


def test_audio_with_no_transcript(complaint, corpus, tmp_path):
    folder = recordings(corpus, tmp_path / "silent")
    for file in folder.glob("*.txt"):
        file.unlink()
    said = complaint("finetune", "bundle=null", "data=folder", f"data.path={folder}")
    assert "no utterance is left for" in said and "0 have a text" in said


def test_a_manifest_that_lies(complaint, corpus, tmp_path):
    said = complaint("pretrain", "data=manifest", f"data.path={tmp_path}/m.jsonl")
    assert f"the manifest '{tmp_path}/m.jsonl' does not exist; check data.path" in said
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "gone.wav"}\n{"audio": 3}\n')
    said = complaint("pretrain", "data=manifest", f"data.path={tmp_path}/m.jsonl")
    assert f"line 2 of '{tmp_path}/m.jsonl' names no recording; add" in said
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "gone.wav"}\n')
    said = complaint("benchmark", f"manifest={tmp_path}/m.jsonl", "bundle=null")
    assert "gone.wav' does not exist" in said


def test_a_missing_data_path(complaint):
    said = complaint("pretrain", "data=folder")
    assert said == "glmasr pretrain: data.path is not set: add data.path=… to the command"


def test_an_unknown_override(complaint, corpus):
    assert "'modle=nano' names nothing in conf/pretrain.yaml; did you mean model=…?" in complaint(
        "pretrain", "modle=nano"
    )
    assert "did you mean bundle=…?" in complaint("finetune", "bundel=x")
    assert "Could not find 'model/huge'" in complaint("pretrain", "model=huge")
    said = complaint("pretrain", "data=folder", f"data.path={corpus}", "+trainer.max_stepz=3")
    assert "trainer has no parameter 'max_stepz'; did you mean 'max_steps'?" in said


def test_an_unwritable_runs_folder(complaint, corpus, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    data = ["data=folder", f"data.path={corpus}"]
    for verb in ("pretrain", "finetune"):
        said = complaint(verb, *data, *["bundle=null"] * (verb == "finetune"))
        assert f"cannot write to runs/{verb} (Not a directory): choose a folder with run_dir=…" in said
    random_bundle(tmp_path / "mine", learn_characters(["ab"]))
    said = complaint("benchmark", *data, "whisper=[]", f"bundle={tmp_path}/mine")
    assert "runs/benchmark" in said and "cannot be written" in said


def test_a_missing_or_foreign_bundle(complaint, corpus, tmp_path):
    data = ["data=folder", f"data.path={corpus}"]
    said = complaint("finetune", *data)
    assert "there is no bundle at runs/pretrain/bundle: run `make pretrain` first" in said
    said = complaint("benchmark", *data, "whisper=[]")
    assert "runs/finetune/bundle is not a bundle" in said and "make finetune" in said
    (tmp_path / "other").mkdir()
    for verb in ("finetune", "benchmark"):
        said = complaint(verb, *data, f"bundle={tmp_path}/other", *["whisper=[]"] * (verb == "benchmark"))
        assert f"{tmp_path}/other is not a bundle: it has no config.yaml" in said


def test_a_label_budget_that_holds_nothing(complaint, corpus):
    data = ["data=folder", f"data.path={corpus}"]
    said = complaint("finetune", *data, "bundle=null", "labels.max_total_minutes=0.001")
    assert "no utterance is left for" in said and "max_total_minutes=0.001" in said


def test_transcribing_a_text_file_named_wav(tmp_path, monkeypatch, capsys):
    (tmp_path / "fake.wav").write_text("this is no sound")
    random_bundle(tmp_path / "bundle", learn_characters(["ab"]))
    arguments = ["--bundle", str(tmp_path / "bundle"), str(tmp_path / "fake.wav")]
    monkeypatch.setattr(sys, "argv", ["glmasr", "transcribe", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 1 and said.count("\n") == 1 and f"'{tmp_path}/fake.wav' is not audio" in said


SLIPS = {
    "pretrain": (["data=folder", "data.path=nowhere"], "glmasr pretrain: the folder 'nowhere' does not exist"),
    "finetune": (["bundle=nowhere"], "glmasr finetune: there is no bundle at nowhere"),
    "benchmark": (["manifest=nowhere"], "glmasr benchmark: the manifest 'nowhere' does not exist"),
}


def test_the_scripts_themselves_end_in_one_sentence(desk):
    """As processes, side by side: exit code 1, one line, nothing else."""
    running = {verb: desk.start(verb, *overrides) for verb, (overrides, _) in SLIPS.items()}
    for verb, process in running.items():
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 1 and said.count("\n") == 1 and said.startswith(SLIPS[verb][1])
