"""HTTP requests as OpenAI's clients send them in, transcripts out: /v1/audio/transcriptions, /v1/models, /health."""

import asyncio
import importlib
import re
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse

from glmasr.serving.answers import FORMATS, answer, delta, done, event
from glmasr.serving.gate import FORM_BYTES, Gate, as_error, headers_of
from glmasr.serving.intake import Refused
from glmasr.serving.metrics import Metrics
from glmasr.serving.service import Options, Service
from glmasr.speech import Transcript
from glmasr.text.written import SCRIPTS

FIELDS = 32
ALIAS = "whisper-1"
"""The model that programs written for OpenAI ask for, taken for the one there is."""
GRANULARITIES, GRANULARITY_FIELDS = ("word", "segment"), ("timestamp_granularities[]", "timestamp_granularities")
CHANNELS = ("mixed", "apart")
LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")
PAGES = ("live", "web")
"""Rooms that add to the app, where what they need is installed."""

T = TypeVar("T")


class Wrong(Refused):
    """A request that says what is not understood: 400, with the name of the field."""

    def __init__(self, message: str, param: str | None, status: int = 400, code: str | None = None):
        super().__init__(status, message)
        self.param, self.code = param, code


@dataclass(frozen=True)
class Asked:
    """A transcription request, understood."""

    file: UploadFile
    options: Options
    form: str
    granularities: tuple[str, ...]
    is_stream: bool


def build_app(service: Service, key: str | None = None, pages: tuple[str, ...] = PAGES) -> FastAPI:
    """The whole app: the API, what `pages` add to it, and the gate around both; `key` is asked for, if there is one."""
    app = FastAPI(title="glmasr", docs_url=None, redoc_url=None, openapi_url=None)
    metrics, born = Metrics(service), int(time.time())
    model = {"id": service.name, "object": "model", "created": born, "owned_by": "glmasr"}
    app.add_middleware(Gate, service=service, metrics=metrics, key=key)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _broken)

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        service.check()
        form = await _form_of(request)
        try:
            asked = understood(form, service.name)
            if asked.is_stream:
                return await _streamed(service, asked)
            transcript = await _unless_gone(request, service.transcribe(asked.file.file, asked.options))
            return answer(transcript, asked.form, asked.granularities)
        finally:
            await form.close()

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict:
        _check_model(name, service.name)
        return model

    @app.get("/health")
    async def health() -> Response:
        status = "draining" if service.is_draining else "ok"
        return JSONResponse({"status": status, "model": service.name}, 503 if service.is_draining else 200)

    @app.get("/metrics")
    async def numbers() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for page in pages:
        try:
            room = importlib.import_module(f"glmasr.serving.{page}")
        except ModuleNotFoundError:
            continue
        room.mount(app, service)
    return app


def understood(form: FormData, model: str) -> Asked:
    """What a form asks for; Wrong, with the field's name, where it cannot be had here."""
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Wrong("no file is sent: upload the audio itself as the form's 'file', not an address of it", "file")
    _check_model(str(form.get("model") or ALIAS), model)
    shape = _one_of(form, "response_format", FORMATS, FORMATS[0])
    granularities = tuple(str(one) for name in GRANULARITY_FIELDS for one in form.getlist(name))
    if unknown := set(granularities) - set(GRANULARITIES):
        raise Wrong(f"'{min(unknown)}' is no granularity: say word or segment", "timestamp_granularities")
    if granularities and shape != "verbose_json":
        raise Wrong("timestamp_granularities need response_format=verbose_json", "timestamp_granularities")
    if form.getlist("include[]") or form.getlist("include"):
        raise Wrong("there is nothing to include here: leave it out", "include")
    is_stream, options = _flag(form, "stream") or False, _options(form)
    if is_stream and shape not in ("json", "text"):
        raise Wrong(f"a stream is text: leave response_format={shape} out, or stream", "stream")
    if is_stream and options.apart:
        raise Wrong("a stream hears one channel: leave channels=apart out, or stream", "channels")
    _check_temperature(form)
    return Asked(file, options, shape, granularities, is_stream)


def _options(form: FormData) -> Options:
    language = str(form.get("language") or "") or None
    if language and not LANGUAGE.fullmatch(language):
        raise Wrong(f"'{language}' is no language tag: say en, zh or yue", "language")
    script = _one_of(form, "script", SCRIPTS, None)
    apart = _one_of(form, "channels", CHANNELS, CHANNELS[0]) == "apart"
    return Options(language, _flag(form, "gain"), script, _flag(form, "numerals") or False, apart)


def _check_model(asked: str, model: str) -> None:
    if asked not in (model, ALIAS):
        raise Wrong(f"there is no model '{asked}' here: ask for '{model}'", "model", 404, "model_not_found")


def _check_temperature(form: FormData) -> None:
    """It changes nothing, as every search here finds the same each time; but what is no number is a mistake."""
    try:
        is_fine = 0.0 <= float(str(form.get("temperature") or 0)) <= 1.0
    except ValueError:
        is_fine = False
    if not is_fine:
        raise Wrong("the temperature is a number from 0 to 1", "temperature")


def _one_of(form: FormData, name: str, choices: tuple[str, ...], default: Any) -> Any:
    value = form.get(name) or default
    if value is not default and value not in choices:
        raise Wrong(f"'{value}' is no {name} here: say one of {', '.join(choices)}", name)
    return value


def _flag(form: FormData, name: str) -> bool | None:
    value = str(form.get(name) or "").lower()
    if value not in ("", "true", "false", "1", "0"):
        raise Wrong(f"'{value}' is neither true nor false", name)
    return value in ("true", "1") if value else None


async def _form_of(request: Request) -> FormData:
    """The form that is sent; 400 for what is none."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Wrong("send a form (multipart/form-data) with the audio as its 'file'", None)
    try:
        return await request.form(max_files=1, max_fields=FIELDS, max_part_size=FORM_BYTES)
    except (HTTPException, ClientDisconnect):
        raise
    except Exception as error:  # the parser's own mistakes about what nobody should send
        raise Wrong(f"the form cannot be read ({type(error).__name__}): send it again", None) from error


async def _streamed(service: Service, asked: Asked) -> Response:
    """Server-sent events; the first part is waited for, so that what is refused has its own status."""
    parts = service.stream(asked.file.file, asked.options)
    first = await anext(parts)
    return StreamingResponse(
        _events(first, parts), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _events(first: Transcript, parts: AsyncIterator[Transcript]) -> AsyncIterator[str]:
    """What is new in each part, if it goes on from what was said before; then the whole."""
    said, last = "", first
    try:
        async for part in _after(first, parts):
            last = part
            if part.text.startswith(said) and len(part.text) > len(said):
                yield delta(part.text[len(said) :])
                said = part.text
        yield done(last)
    except Refused as refused:
        yield event(as_error(refused))


async def _after(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    yield first
    async for one in rest:
        yield one


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to; where the client does not wait for it, it is dropped."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        leaving.cancel()


async def _refused(request: Request, error: Exception) -> Response:
    refused = Wrong(str(error.detail), None, error.status_code) if isinstance(error, HTTPException) else error
    assert isinstance(refused, Refused)
    content = as_error(refused, getattr(refused, "param", None), getattr(refused, "code", None))
    return JSONResponse(content, refused.status, headers_of(refused))


async def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse(as_error(Refused(500, "the server failed on this request: its log says why")), 500)
