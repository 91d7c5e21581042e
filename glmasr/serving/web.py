"""A service in, its page for people out: Gradio's app at `/` and its API under `/gradio_api/`.

Gradio would fetch addresses, read paths and serve files for whoever asks; `Guard` lets through what the page needs, and
paths only of what has been uploaded here. Nothing in the page comes from, or goes to, another address.
"""

import asyncio
import base64
import binascii
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as Gradio is imported
import gradio as gr
import numpy as np
from fastapi import FastAPI, Request
from gradio.events import api
from gradio.themes import Base
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glmasr.frontend.audio import AUDIO_SUFFIXES, CONTAINER_SUFFIXES
from glmasr.frontend.gain import Gain, lifted_for_detector
from glmasr.serving.gate import GRACE_SECONDS, as_error, headers_of
from glmasr.serving.intake import Refused
from glmasr.serving.page import LANGUAGES, failed, shown, waveforms
from glmasr.serving.service import Options, Service
from glmasr.serving.watch import state_of
from glmasr.speech import RATE_HZ, Transcript
from glmasr.text.tokenizer import SPECIAL
from glmasr.transcriber import Transcriber

PREDICT = ("/gradio_api/run/predict", "/gradio_api/api/predict")
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+=\"-]+)*;base64,")
PICTURE_SECONDS = 120
"""How much of a recording is drawn."""
CLEAN_SECONDS, KEPT_SECONDS = 300, 3600
"""How often uploads are looked through for those that are older than this, which are removed."""
READ = re.compile(
    r"/|/(config|theme\.css|manifest\.json|favicon\.ico|robots\.txt|pwa_icon)/?|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|startup-events|upload_progress|queue/data|app_id|login_check|user|token)/?"
    r"|/gradio_api/heartbeat/\w+|/gradio_api/call/\w+/\w+|/gradio_api/file=.+"
)
SENT = re.compile(r"/gradio_api/(upload|cancel|reset|queue/join|call/predict)/?")
SHAPE = 'send {"data": ["data:audio/wav;base64,…"]}, behind it a language and true for gain'
HEADERS = {
    "content-security-policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""What a browser is told: no page, script, font, picture or request of another address."""
FONTS = ["system-ui", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"]
COLORS = {
    "color_accent": "*primary_600",
    "body_text_color_subdued": "*neutral_500",
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
}
"""Darker than Gradio's own, which are hard to read."""
EMPTY = "<div class='empty'>Record something, or choose files.<br>请录音，或选择音频文件。</div>"
CAPTIONS = """
<div id='captions' class='captions'>
  <div class='bar'>
    <button type='button' class='toggle'>Start 开始</button>
    <meter class='level' min='0' max='1' aria-label='level'></meter>
    <span class='state'>Captions appear while you speak. 边说边出字幕。</span>
  </div>
  <ol class='lines' aria-live='polite'></ol>
</div>
"""


class Guard:
    """ASGI around Gradio: what the page needs goes through, Refused is what reads anything that was not uploaded.

    Gradio would also let pages of any address read its answers with their user's key; here none may.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, folder: Path, held_bytes: int):
        self.app, self.page, self.folder, self.held_bytes = app, page, folder, held_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if not pair[0].startswith(b"access-control-")]
                named = {name for name, _ in kept}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*kept, *(pair for pair in added if pair[0] not in named)]
            await send(message)

        try:
            receive = await self._checked(scope, receive)
        except Refused as refused:
            await JSONResponse(as_error(refused), refused.status, headers_of(refused))(scope, receive, sent)
        else:
            await self.app(scope, receive, sent)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        path = scope["path"]
        is_read = scope["method"] in ("GET", "HEAD")
        if not (READ if is_read else SENT).fullmatch(path):
            raise Refused(404, "there is nothing at this address")
        if is_read:
            _, _, file = path.partition("/gradio_api/file=")
            if file and not is_within(self.folder, unquote(file)):
                raise Refused(403, "only what was uploaded here can be fetched")
            return receive
        if path.rstrip("/").endswith("/upload"):
            if await asyncio.to_thread(_bytes_in, self.folder) > self.held_bytes:
                raise Refused(429, "too many uploads wait: try again later", GRACE_SECONDS)
            return receive
        body = await Request(scope, receive).body()
        return _again(await asyncio.to_thread(self._whole, path, body), receive)

    def _whole(self, path: str, body: bytes) -> bytes:
        """The body with what was left out, since Gradio logs all of one in which a value is missing."""
        said = _json(body)
        for named in _paths_in(said):
            if not is_within(self.folder, named):
                raise Refused(400, "a file is named that was not uploaded here: upload it, addresses are not fetched")
        data = said.get("data") if isinstance(said, dict) else None
        if "/call/" in path:
            return json.dumps({**(said if isinstance(said, dict) else {}), "data": _three(data)}).encode()
        if "/queue/" in path:
            event = said.get("fn_index") if isinstance(said, dict) else None
            function = self.page.fns.get(event) if isinstance(event, int) else None
            if function is None or not isinstance(data, list) or len(data) != len(function.inputs):
                raise Refused(400, "the page has changed since it was loaded: load it again")
        return body


def mount(app: FastAPI, service: Service) -> FastAPI:
    """Add the page at `/` and `POST` PREDICT, which takes `{"data": [AUDIO, language, gain]}` and answers
    `{"data": [text]}` or an error with its status; AUDIO is a data URL or Gradio's object of an uploaded file.
    """
    uploads = tempfile.TemporaryDirectory(prefix="glmasr-page-", ignore_cleanup_errors=True)
    app.state.uploads = uploads  # it is removed with the app
    folder = Path(uploads.name).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)

    async def predict(request: Request) -> JSONResponse:
        service.check()
        audio, options = await asyncio.to_thread(asked, await request.body(), folder)
        transcript = await service.transcribe(audio, options)
        return JSONResponse({"data": [transcript.text]})

    for path in PREDICT:
        app.post(path)(predict)
    page = build_page(service, folder)
    here = Path(__file__).parent
    gr.mount_gradio_app(
        app,
        page,
        "/",
        theme=Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["monospace"]).set(**COLORS),
        css=(here / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(here / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=service.limits.upload_bytes,
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    mounted = app.routes[-1]
    assert isinstance(mounted, Mount)
    mounted.app = Guard(mounted.app, page, folder, service.limits.held_bytes)
    return app


def build_page(service: Service, folder: Path) -> gr.Blocks:
    """The page, which hears files in `folder` only."""
    system = service.system
    is_ours, is_live = isinstance(system, Transcriber), getattr(system, "recognizer", None) is not None
    lifts = getattr(system, "gain", None) is not None
    tags = languages_of(system)
    choices = [("Automatic 自动", ""), *((f"{LANGUAGES.get(tag, tag)} · {tag}", tag) for tag in tags)]
    with gr.Blocks(
        title=f"glmasr · {service.name}", analytics_enabled=False, delete_cache=(CLEAN_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.HTML(
            f"<div class='masthead'><h1>glmasr</h1><p>Speech to text on this machine 本机语音识别</p>"
            f"<code>{escape(service.name)}</code></div>",
            padding=False,
        )
        with gr.Row():
            language = gr.Dropdown(
                choices, value="", label="Language 语言", elem_id="language", filterable=False, visible=bool(tags)
            )
            gain = gr.Checkbox(
                lifts,
                label="Find quiet speech 听清轻声",
                info="Dynamic gain for the voice detector 动态增益",
                elem_id="gain",
                visible=is_ours,
            )
        with gr.Tab("Transcribe 转写"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                recording = gr.Audio(
                    sources=["microphone"], type="filepath", label="Microphone 麦克风", editable=False, buttons=[]
                )
                files = gr.File(
                    file_count="multiple",
                    file_types=[*AUDIO_SUFFIXES, *CONTAINER_SUFFIXES],
                    label="Audio files 音频文件",
                    height=150,
                )
                button = gr.Button("Transcribe 转写", variant="primary", elem_id="go")
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(EMPTY, elem_id="result", padding=False)
        if is_live:
            with gr.Tab("Live captions 实时字幕"):
                gr.HTML(CAPTIONS, padding=False)

        async def hear(
            tag: str, gained: bool, recorded: str | None, chosen: list[str] | None = None
        ) -> AsyncIterator[str]:
            named = [(Path(recorded), "Recording 录音.wav")] if recorded else []
            named += [(Path(file), Path(file).name) for file in chosen or []]
            options = Options(tag or None, None if gained == lifts else gained)
            done = card = ""
            with _counted(service):
                for path, name in named:
                    async for card in cards(service, folder, path, name, options):
                        yield done + card
                    done += card
            if not named:
                yield EMPTY

        how: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "minimal"}
        recording.stop_recording(hear, [language, gain, recording], result, **how)
        button.click(hear, [language, gain, recording, files], result, **how)
        api(_spoken(service, folder), api_name="predict", concurrency_limit=None)
    page.queue(max_size=service.limits.queue)
    return page


async def cards(service: Service, folder: Path, path: Path, name: str, options: Options) -> AsyncIterator[str]:
    """What a recording's card shows as it is heard, at last the whole with a picture, or why there is none."""
    try:
        if not is_within(folder, str(path)):
            raise Refused(400, "a file is named that was not uploaded here: upload it")
        transcript = Transcript("", 0.0)
        async for transcript in service.stream(path, options):
            yield shown(name, transcript, is_whole=False)
        picture = await asyncio.get_running_loop().run_in_executor(
            service.readers, _picture, service, path, gain_with(service, options)
        )
        yield shown(name, transcript, picture)
    except Refused as refused:
        yield failed(name, refused.message)


def asked(body: bytes, folder: Path) -> tuple[bytes | Path, Options]:
    """The audio and options of a request as Gradio's clients make it; Refused (400) where it is none."""
    said = _json(body)
    return understood(_three(said.get("data") if isinstance(said, dict) else None), folder)


def understood(data: list, folder: Path) -> tuple[bytes | Path, Options]:
    """The same of its three values."""
    audio, language, gain = data
    if not isinstance(language, str | None) or not isinstance(gain, bool | None) or len(language or "") > 35:
        raise Refused(400, "behind the audio come a language tag, as zh, and true or false for gain")
    return audio_of(audio, folder), Options(language or None, gain)


def audio_of(sent: Any, folder: Path) -> bytes | Path:
    """The audio of a data URL, or the uploaded file of Gradio's object; Refused (400) where it is neither."""
    if isinstance(sent, dict):
        path, url = sent.get("path"), sent.get("url")
        if isinstance(path, str) and is_within(folder, path):
            return Path(path)
        sent = url
    found = DATA_URL.match(sent) if isinstance(sent, str) else None
    if not found:
        raise Refused(400, "the audio is a data URL (data:audio/wav;base64,…) or a file uploaded to /gradio_api/upload")
    try:
        return base64.b64decode(sent[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "the data URL's base64 is damaged: encode the file again") from None


def is_within(folder: Path, path: str) -> bool:
    """Whether a path is, with all links followed, a file inside of a folder."""
    try:
        found = Path(path).resolve()
        return found.is_relative_to(folder) and found.is_file()
    except (OSError, ValueError):  # too long, or with a zero in it
        return False


def languages_of(system: Any) -> list[str]:
    """The tags that a system can be told to hear, in their order; none where it cannot be told."""
    if isinstance(system, Transcriber):
        tokenizer = system.tokenizer
        return sorted({tokenizer.language_of([token]) for token in range(SPECIAL, tokenizer.size)} - {""})
    return list(getattr(system, "languages", None) or ())


def gain_with(service: Service, options: Options) -> Gain | None:
    """The gain that a recording is heard with; None without."""
    return getattr(service.variant(options), "gain", None)


def _picture(service: Service, path: Path, gain: Gain | None) -> str:
    before = service.intake.read(path, service.allowance)[: PICTURE_SECONDS * RATE_HZ]
    after = None if gain is None else np.concatenate([*lifted_for_detector(gain, [before]), before[:0]])
    return waveforms(before, after)


def _spoken(service: Service, folder: Path):
    async def predict(audio: Any, language: Any = None, gain: Any = None) -> str:
        """The text of a recording: a data URL, or an uploaded file."""
        try:
            service.check()
            heard, options = await asyncio.to_thread(understood, [audio, language, gain], folder)
            return (await service.transcribe(heard, options)).text
        except Refused as refused:
            raise gr.Error(refused.message, print_exception=False) from refused

    return predict


@contextmanager
def _counted(service: Service) -> Iterator[None]:
    """One of the requests that a server waits for before it ends, all the files of it."""
    service.requests += 1
    try:
        yield
    finally:
        service.requests -= 1


def _three(data: Any) -> list:
    """Audio, language and gain, of which the last may be left out; Refused (400) where these are none."""
    if not isinstance(data, list) or not 1 <= len(data) <= 3:
        raise Refused(400, SHAPE)
    return [*data, None, None][:3]


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the request is no JSON: mend it") from None


def _paths_in(said: Any) -> Iterator[str]:
    """What any object in it names as its path."""
    waiting = [said]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if one.get("path") is not None:
                yield str(one["path"])
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _bytes_in(folder: Path) -> int:
    """What goes away meanwhile, as Gradio cleans up, weighs nothing."""
    files = (Path(home, name) for home, _, names in os.walk(folder) for name in names)
    return sum(state[0] for state in map(state_of, files) if state)


def _again(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that has been read, then what comes after it."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return parts.pop() if parts else await receive()

    return replay
