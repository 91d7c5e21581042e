"""The images' files in; whether they keep to what a company asks of an image out, as far as one can tell unbuilt."""

import fnmatch
import http.server
import re
import subprocess
import sys
import threading
import tomllib

import pytest
import yaml

from tests.small import REPOSITORY

IMAGES = ["Dockerfile", "docker/onnx.Dockerfile"]
ONNX = REPOSITORY / "docker" / "requirements-onnx.txt"
KEYWORDS = {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and the rest of each instruction, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(text: str) -> list[list[tuple[str, str]]]:
    """Instructions from each FROM to the next."""
    found: list[list[tuple[str, str]]] = []
    for keyword, rest in instructions(text):
        if keyword == "FROM":
            found.append([])
        found[-1].append((keyword, rest))
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last line that matches it, or one above it, decides."""
    out = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted, pattern = not pattern.startswith("!"), pattern.lstrip("!")
        above = ["/".join(path.split("/")[: i + 1]) for i in range(path.count("/") + 1)]
        if any(fnmatch.fnmatch(one, pattern) or fnmatch.fnmatch(one, pattern.replace("**/", "")) for one in above):
            out = wanted
    return out


def problems(text: str) -> list[str]:
    """What is wrong with a Dockerfile, by the rules of hadolint that matter here and by ours."""
    found, built = [], stages(text)
    last = dict(built[-1])
    for keyword, rest in instructions(text):
        if keyword not in KEYWORDS:
            found.append(f"{keyword} is not needed here")
        if keyword == "FROM" and not re.match(r"[\w./-]+:\d[\w.-]*(@sha256:[0-9a-f]{64})?( AS \w+)?$", rest):
            found.append(f"DL3006/7 {rest} is not pinned to a version")
        if (
            keyword == "RUN"
            and "apt-get install" in rest
            and not ("--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest)
        ):
            found.append("DL3009/15 apt leaves its lists, or brings what is recommended")
        if keyword == "RUN" and re.search(r"pip install(?!.*--no-cache-dir)", rest):
            found.append("DL3042 pip leaves its cache")
        if keyword == "RUN" and re.search(r"\b(sudo|curl|wget)\b|:latest|--trusted-host|--index-url|https?://", rest):
            found.append(f"{rest} fetches what is not pinned, or from who knows where")
        if keyword == "ENV" and re.search(r"(?i)(key|token|password|secret)\w*=", rest):
            found.append(f"{rest} bakes a secret in")
        if keyword == "COPY" and "--from=" not in rest:
            found += [f"{one} is not in the build" for one in rest.split()[:-1] if not _is_there(one)]
        if keyword in ("CMD", "ENTRYPOINT") and not rest.startswith("["):
            found.append(f"DL3025 {keyword} is not JSON, so no signal reaches the server")
    if last.get("USER", "root").split(":")[0] in ("root", "0") or not last.get("USER", "").isdigit():
        found.append("DL3002 the last USER is root, or no number that others can check")
    if "/health" not in last.get("HEALTHCHECK", "") and "health.py" not in last.get("HEALTHCHECK", ""):
        found.append("no HEALTHCHECK of /health")
    names = [keyword for keyword, _ in built[-1]]
    if "USER" in names and any(name in ("RUN", "COPY") for name in names[names.index("USER") :]):
        found.append("what runs may write what it runs: COPY and RUN belong before USER")
    return found


def _is_there(path: str) -> bool:
    return (REPOSITORY / path).exists() and not ignored(path)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_built_as_it_should_be(name):
    assert problems((REPOSITORY / name).read_text()) == []


@pytest.mark.parametrize(
    ("text", "instead", "says"),
    [
        ("FROM python:3.11.13-slim-bookworm\n", "FROM python:latest\n", "not pinned"),
        ("FROM python:3.11.13-slim-bookworm\n", "FROM python\n", "not pinned"),
        ("USER 10001", "USER root", "root"),
        ("USER 10001\n", "", "root"),
        ("HEALTHCHECK", "# HEALTHCHECK", "no HEALTHCHECK"),
        ("--no-cache-dir ", "", "DL3042"),
        ("COPY glmasr glmasr", "COPY nothing glmasr", "nothing is not in the build"),
        ("COPY glmasr glmasr", "COPY runs glmasr", "runs is not in the build"),
        ('CMD ["serve"', 'CMD serve ["x"', "DL3025"),
        ("ENV PATH", "ENV GLMASR_API_KEY=abc PATH", "bakes a secret"),
        ("WORKDIR /source", "RUN apt-get install -y sox", "DL3009"),
        ("WORKDIR /source", "RUN curl -O x", "fetches"),
        ("EXPOSE 7860", "COPY glmasr /", "belong before USER"),
        ("EXPOSE 7860", "ADD x /", "ADD is not needed"),
    ],
)
def test_the_lint_sees_what_it_is_for(text, instead, says):
    whole = (REPOSITORY / "docker" / "onnx.Dockerfile").read_text()
    assert text in whole
    assert any(says in one for one in problems(whole.replace(text, instead)))


def test_only_what_an_image_needs_goes_to_the_builder():
    kept_out = [".git", ".venv", "runs", "data", "tests", "docs", "docker/api_key", ".env", "glmasr/__pycache__"]
    assert [path for path in kept_out if not ignored(path)] == []
    assert not ignored("glmasr/serving/rest.py") and not ignored("glmasr/text/written.py")


@pytest.mark.parametrize("name", IMAGES)
def test_what_an_image_starts_is_a_command_of_ours(name, capsys):
    from glmasr import cli

    last = dict(stages((REPOSITORY / name).read_text())[-1])
    assert yaml.safe_load(last["ENTRYPOINT"]) == ["glmasr"]
    args = cli.parser().parse_args(yaml.safe_load(last["CMD"]))
    assert args.run is cli.serve and args.host == "0.0.0.0" and str(args.port) == last["EXPOSE"]
    assert "HF_HUB_OFFLINE=1" in last["ENV"]


def test_compose_runs_what_the_images_are_and_no_more_than_they_need():
    from glmasr import cli

    services = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert (REPOSITORY / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert all(isinstance(one, str) and "=" not in one for one in service.get("environment", []))
        assert any(":/bundle:ro" in volume for volume in service["volumes"])
        if "command" in service:
            args = cli.parser().parse_args(service["command"])
            assert args.run is cli.transcribe and args.watch == "/inbox"


def test_the_torch_free_image_has_no_torch_and_nothing_unpinned():
    lines = [line for line in ONNX.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", line) for line in lines), lines
    names = {line.split("==")[0].lower() for line in lines}
    assert not names & {"torch", "torchaudio", "pytorch-lightning", "silero-vad", "transformers", "faster-whisper"}
    assert names >= {"onnxruntime", "soundfile", "soxr", "sentencepiece", "fastapi", "rapidfuzz"}


def test_its_pins_are_within_what_the_project_asks_for():
    from packaging.requirements import Requirement

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    pins = dict(line.split("==") for line in ONNX.read_text().splitlines() if "==" in line and not line.startswith("#"))
    pins = {name.lower(): version for name, version in pins.items()}
    checked = 0
    for requirement in map(Requirement, asked):
        if (version := pins.get(requirement.name.lower())) and requirement.specifier:
            assert requirement.specifier.contains(version), requirement
            checked += 1
    assert checked >= 10


def test_torch_is_not_imported_to_transcribe_an_export_or_to_review_a_transcript():
    """What the torch-free image relies on; in a process of its own, as this one has torch."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import glmasr.cli, glmasr.transcriber, glmasr.exported, glmasr.channels\n"
        "import glmasr.serving.watch, glmasr.serving.review.call, glmasr.serving.review.alerts\n"
        "import glmasr.serving.review.report"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(status, code):
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    port = server.server_port
    if status is None:
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    command = [sys.executable, str(REPOSITORY / "docker" / "health.py")]
    environment = {"GLMASR_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode == code, done.stderr
    if status is not None:
        server.shutdown()
        server.server_close()
