"""The house keeps its own rules: doors one way, one room per foreign library, a sentence and a test for each file."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import REPOSITORY

SOURCES = sorted(
    path.relative_to(REPOSITORY) for room in ("glmasr", "scripts") for path in (REPOSITORY / room).rglob("*.py")
)
TESTS = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("*.py"))
ROOMS = {
    "soundfile": "glmasr/frontend/audio.py",
    "soxr": "glmasr/frontend/audio.py",
    "torchaudio": "glmasr/frontend/",
    "av": "glmasr/frontend/containers.py",
    "gradio": "glmasr/serving/web.py",
    "fastapi": "glmasr/serving/",
    "starlette": "glmasr/serving/",
    "uvicorn": "glmasr/serving/",
    "prometheus_client": "glmasr/serving/metrics.py",
    "rapidfuzz": "glmasr/serving/review/matches.py",
    "onnx": "glmasr/exporting/",
    "datasets": "glmasr/data/",
    "pyarrow": "glmasr/data/",
    "pytorch_lightning": "glmasr/training/",
    "wandb": ("glmasr/training/", "glmasr/evaluation/tables.py"),
    "faster_whisper": "glmasr/evaluation/baselines.py",
    "ctranslate2": "glmasr/evaluation/baselines.py",
    "jinja2": ("glmasr/evaluation/report.py", "glmasr/serving/review/report.py"),
    "matplotlib": "glmasr/figures.py",
    "transformers": ("glmasr/evaluation/systems.py", "glmasr/exporting/huggingface.py"),
    "httpx": ("glmasr/evaluation/systems.py", "glmasr/serving/review/summary.py"),
    "jiwer": "glmasr/text/errors.py",
    "whisper_normalizer": "glmasr/text/normalize.py",
    "sklearn": "glmasr/model/codebook.py",
    "sentencepiece": "glmasr/text/tokenizer.py",
    "safetensors": ("glmasr/bundle.py", "glmasr/training/callbacks.py", "glmasr/training/probing.py"),
    "onnxruntime": ("glmasr/frontend/vad.py", "glmasr/exported.py", "glmasr/exporting/"),
    "opencc": ("glmasr/text/normalize.py", "glmasr/text/written.py"),
    "wetext": "glmasr/text/written.py",
    "kenlm": "glmasr/decoding/ngram.py",
    "cn2an": ("glmasr/text/normalize.py", "glmasr/text/written.py"),
    "pypinyin": "glmasr/text/syllables.py",
    "ToJyutping": "glmasr/text/syllables.py",
    "scipy": ("glmasr/augment/", "glmasr/evaluation/bootstrap.py"),
    "pyroomacoustics": "glmasr/augment/reverb.py",
    "fsspec": "glmasr/data/remote.py",
    "hydra": "scripts/door.py",
    "omegaconf": "scripts/door.py",
}
"""Where a foreign library may be imported: one file, or one room with all its files."""

ELSEWHERE = {
    "glmasr/speech.py": "dataclasses that every other test uses",
    "glmasr/objective/contract.py": "a Protocol and two dataclasses",
    "glmasr/decoding/hypothesis.py": "one dataclass",
    "scripts/pretrain.py": "tests/journeys/test_spine.py",
    "scripts/prepare.py": "tests/data/test_prepare.py",
    "scripts/shards.py": "tests/data/test_export.py",
    "scripts/clusters.py": "tests/training/test_clusters.py",
    "scripts/finetune.py": "tests/journeys/test_spine.py",
    "scripts/benchmark.py": "tests/journeys/test_spine.py",
    "scripts/label_efficiency.py": "tests/evaluation/test_label_efficiency.py",
    "scripts/language_model.py": "tests/decoding/test_ngram.py",
    "scripts/plan.py": "tests/planning/test_table.py",
    "scripts/chaos.py": "tests/training/test_chaos.py",
    "scripts/slurm_rehearsal.py": "tests/journeys/test_slurm.py",
    "glmasr/training/team.py": "tests/journeys/test_faults.py",
}
"""Sources without a test file of their own, and where or why they need none."""


@functools.cache
def imported(path: Path) -> set[str]:
    """Top names of everything a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_doors_open_one_way():
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(lint, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "1 kept, 0 broken" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("library", ROOMS)
def test_a_foreign_library_has_one_room(library):
    users = [str(path) for path in SOURCES if library in imported(path)]
    assert [user for user in users if not user.startswith(ROOMS[library])] == []


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=str)
def test_a_file_opens_with_its_sentence(path):
    sentence = ast.get_docstring(ast.parse((REPOSITORY / path).read_text()))
    assert sentence and len(sentence.splitlines()[0]) > 20 and sentence.splitlines()[0].rstrip().endswith((".", "!"))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=str)
def test_a_doorplate_imports_nothing(path):
    assert len(ast.parse((REPOSITORY / path).read_text()).body) == 1


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "__init__.py"], ids=str)
def test_a_source_has_its_test(path):
    mirrored = Path("tests", *path.parts[1:-1], f"test_{path.name}")
    assert (REPOSITORY / mirrored).exists() != (str(path) in ELSEWHERE), f"{mirrored} or a reason in ELSEWHERE"


def test_the_exemptions_are_files():
    assert {str(path) for path in SOURCES} >= set(ELSEWHERE)


def test_public_names_say_what_they_are_for():
    """Classes and functions that another file may use; methods are the reviewer's business."""
    silent = []
    for path in SOURCES:
        for node in ast.parse((REPOSITORY / path).read_text()).body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if public and str(path).startswith("glmasr") and not ast.get_docstring(node):
                silent.append(f"{path}: {node.name}")
    assert not silent


def tree_of(readme: str) -> set[str]:
    """What the lines of a README's tree begin with: a fenced block that has glmasr/ and conf/ in it."""
    blocks = [
        block for block in re.findall(r"```\w*\n(.*?)```", readme, re.S) if "glmasr/" in block and "conf/" in block
    ]
    lines = [re.sub(r"[│├└─]", " ", line).strip() for block in blocks for line in block.splitlines()]
    return {name for line in lines for name in re.split(r"\s{2,}", line)[0].split()}


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_tree_in_the_readme_is_true(name):
    readme, package = REPOSITORY / name, REPOSITORY / "glmasr"
    named = tree_of(readme.read_text(encoding="utf-8")) if readme.exists() else set()
    if not named:
        pytest.skip(f"{name} shows no tree yet")
    there = {name for name in named for home in (REPOSITORY, package) if list(home.glob(f"{name.rstrip('/')}*"))}
    assert named - there - {"runs/"} == set()
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    hallway = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert (rooms | hallway) - named == set()
