"""A real browser with a microphone of recorded speech in, text, captions and subtitles on the page out.

The browser is Chromium, headless; its pictures of the page are left in pytest's folder `page*` (`--basetemp`).
"""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt

from glmasr.frontend.audio import read_audio
from glmasr.serving.rest import build_app
from glmasr.serving.server import listening, server_of
from glmasr.serving.service import Limits, Service
from glmasr.text.subtitles import write_srt
from glmasr.text.tokenizer import learn_characters
from glmasr.transcriber import Transcriber
from tests.serving.served import wait_for
from tests.small import random_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="Gradio is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
HOSTILE = "<img src=x onerror=document.title='taken'>.flac"


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory) -> Transcriber:
    folder = tmp_path_factory.mktemp("browsed") / "mine" / "bundle"
    random_bundle(folder, learn_characters(["abc de 北京 & < >"]), language="zh")
    return Transcriber(str(folder))


@pytest.fixture(scope="module")
def clips(rhyme_root) -> list[Path]:
    return [rhyme_root / "rhyme_test" / "audio" / f"{clip}.flac" for clip in ("M4_b1_w1", "F1_b10_w1")]


@pytest.fixture(scope="module")
def address(transcriber) -> Iterator[str]:
    service = Service(transcriber, Limits(upload_bytes=1 << 20))
    taken = listening("127.0.0.1", 0)
    server = server_of(build_app(service), service)
    thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    service.close()


@pytest.fixture(scope="module")
def browser(clips, tmp_path_factory):
    """Its microphone hears the clips again and again, with a second of silence behind each."""
    heard = tmp_path_factory.mktemp("microphone") / "speech.wav"
    pause = np.zeros(16_000, np.float32)
    soundfile.write(heard, np.concatenate([part for clip in clips for part in (read_audio(str(clip)), pause)]), 16_000)
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--no-sandbox"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=[*flags, f"--use-file-for-fake-audio-capture={heard}"]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture
def page(browser, address):
    """The page in a new context; at the end nothing may have been asked of another address, nor gone wrong in it."""
    asked, wrong = [], []
    with contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 900})) as context:
        opened = context.new_page()
        opened.set_default_timeout(20_000)
        context.on("request", lambda request: asked.append(request.url))
        opened.on("websocket", lambda socket: asked.append(socket.url))
        opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.goto(address)
        opened.get_by_role("button", name="Transcribe 转写").wait_for()
        yield opened
    host = address.partition("//")[2]
    assert {
        url for url in asked if url.partition("//")[2].partition("/")[0] != host and url[:5] not in ("data:", "blob:")
    } == set()
    assert not wrong


def test_uploads_become_cards_with_text_and_subtitles(page, transcriber, clips, pictures, tmp_path):
    shutil.copy(clips[1], hostile := tmp_path / HOSTILE)
    page.locator("input[type=file]").set_input_files([str(clips[0]), str(hostile)])
    page.get_by_text("M4_b1_w1").first.wait_for()
    page.get_by_role("button", name="Transcribe 转写").click()
    page.locator("#result .take nav").nth(1).wait_for()
    cards = page.locator("#result .take")
    for number, clip in enumerate(clips):
        expected = transcriber([read_audio(str(clip))])[0]
        assert cards.nth(number).locator(".lines span").all_inner_texts() == [one.text for one in expected.segments]
        with page.expect_download() as taken:
            cards.nth(number).get_by_role("link", name="SRT").click()
        content = Path(taken.value.path()).read_text(encoding="utf-8")
        assert content == write_srt(expected) and list(srt.parse(content))
    assert page.title() != "taken" and page.locator("#result img").count() == 0
    page.screenshot(path=pictures / "uploaded-1400.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=pictures / "uploaded-390.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_recorded_is_heard_with_gain_and_drawn(page, pictures):
    page.get_by_label("Find quiet speech").check()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#result .take nav").wait_for()
    assert page.locator("#result .lines span").first.inner_text().strip()
    assert page.locator("#result .waves svg").count() == 2
    with page.expect_download() as taken:
        page.get_by_role("link", name="JSON").click()
    assert json.loads(Path(taken.value.path()).read_text(encoding="utf-8"))["segments"]
    page.screenshot(path=pictures / "recorded-1400.png", full_page=True)


def test_captions_appear_while_somebody_speaks(page, pictures):
    page.get_by_role("tab", name="Live captions").click()
    page.get_by_role("button", name="Start 开始").click()
    page.locator("#captions li.final").nth(1).wait_for()
    page.screenshot(path=pictures / "captions-1400.png")
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=pictures / "captions-390.png")
    page.get_by_role("button", name="Stop 停止").click()
    page.get_by_text("Stopped 已停止").wait_for()
    assert page.locator("#captions li.partial").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_no_audio_is_said_in_its_card(page, tmp_path):
    (tmp_path / "novel.wav").write_bytes(b"It was a dark and stormy night." * 99)
    page.locator("input[type=file]").set_input_files(str(tmp_path / "novel.wav"))
    page.get_by_text("novel").first.wait_for()
    page.get_by_role("button", name="Transcribe 转写").click()
    assert "not audio" in page.locator("#result .take .bad").inner_text()
