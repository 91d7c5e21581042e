"""Sentences that say most: ranked as two other libraries rank them; and a chat model that may fail in any way."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import networkx
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from glmasr.serving.review.rules import Llm
from glmasr.serving.review.summary import Summary, centrality, chosen, likeness, summarize, terms

CALL = [
    ("agent", "Thank you for calling the bank."),
    ("customer", "My card was charged twice for the same hotel."),
    ("customer", "The hotel charged my card two times."),
    ("agent", "I see both charges of the hotel on your card."),
    ("agent", "Okay."),
    ("agent", "The second charge will be returned to your card within five days."),
    ("customer", "Great weather by the way."),
]


def test_ranks_are_those_of_sklearn_and_networkx():
    texts = [text for _, text in CALL]
    vectors = TfidfVectorizer(analyzer=terms).fit_transform(texts)
    cosines = (vectors @ vectors.T).toarray()
    np.testing.assert_allclose(likeness(texts), cosines, atol=1e-6)
    np.fill_diagonal(cosines, 0)
    ranks = networkx.pagerank(networkx.from_numpy_array(cosines), alpha=0.85, tol=1e-12)
    np.testing.assert_allclose(centrality(likeness(texts)), [ranks[i] for i in range(len(texts))], atol=1e-5)


def test_sumy_would_choose_them_too():
    """A library that people summarize with, given the same terms: its best sentence is among ours."""
    pytest.importorskip("sumy")
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
    from sumy.summarizers.text_rank import TextRankSummarizer

    class Terms:
        def to_words(self, text):
            return tuple(terms(text))

    sentences = [Sentence(text, Terms()) for _, text in CALL]
    best = TextRankSummarizer()(ObjectDocumentModel([Paragraph(sentences)]), 1)
    assert str(best[0]) in [text for _, text in chosen(CALL, 3)]


def test_what_says_most_is_told_once_and_in_its_order():
    taken = [text for _, text in chosen(CALL, 3)]
    assert CALL[3][1] in taken and "Okay." not in taken and CALL[6][1] not in taken
    assert [text for _, text in CALL if text in taken] == taken
    twice = [("", "the card is lost"), ("", "The card is lost!"), ("", "a new one comes by mail")]
    assert len(chosen(twice, 3)) == 2


def test_chinese_needs_no_dictionary():
    assert terms("我的卡 lost 了") == ["我的", "的卡", "lost", "了"]
    call = [
        ("", "我的银行卡被酒店重复扣款"),
        ("", "酒店重复扣款两次"),
        ("", "今天天气不错"),
        ("", "银行卡的扣款会退回"),
    ]
    assert ("", "今天天气不错") not in chosen(call, 2)


def test_few_none_and_very_many_sentences():
    assert chosen([], 3) == [] and chosen([("", "…")], 3) == [] and chosen(CALL, 0) == []
    assert summarize([], 3, Llm("http://127.0.0.1:9/", "m")) == Summary(())
    begun = time.perf_counter()
    many = [("", f"word{i % 97} goes with thing{i % 89} and {i}") for i in range(5000)]
    assert len(chosen(many, 3)) == 3 and time.perf_counter() - begun < 20


@pytest.fixture
def endpoint():
    """A chat endpoint on loopback that does what the path says, and what it was asked."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append((body, self.headers.get("Authorization")))
            content = json.dumps({"choices": [{"message": {"content": " They agreed <b>so</b>. "}}]}).encode()
            content = {"/nonsense": b"{}", "/empty": b'{"choices":[{"message":{"content":""}}]}'}.get(
                self.path, content
            )
            try:
                if self.path == "/slow":
                    time.sleep(3)
                self.send_response(500 if self.path == "/broken" else 302 if self.path == "/elsewhere" else 200)
                self.send_header("Location", "/")
                if self.path not in ("/drip", "/endless"):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for _ in range(40 if self.path == "/drip" else 0):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
                for _ in range(64 if self.path == "/endless" else 0):
                    self.wfile.write(b" " * (1 << 16))
                self.wfile.write(content)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.daemon_threads = [], True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()


def asked(endpoint, path: str, **options) -> Summary:
    llm = Llm(f"http://127.0.0.1:{endpoint.server_port}{path}", "local", timeout_seconds=1.0, **options)
    return summarize(CALL, 2, llm)


def test_a_chat_model_summarizes_where_one_is_named(endpoint, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    found = asked(endpoint, "/v1/chat/completions", key_variable="MY_KEY", prompt="Be short.")
    assert found == Summary(("They agreed <b>so</b>.",), by="local")
    ((body, key),) = endpoint.asked
    assert key == "Bearer secret" and body["model"] == "local" and body["messages"][0]["content"] == "Be short."
    assert body["messages"][1]["content"].splitlines()[1] == "customer: My card was charged twice for the same hotel."


def test_nothing_is_sent_where_none_is_named(endpoint):
    assert summarize(CALL, 2).by == "sentences" and endpoint.asked == []


@pytest.mark.parametrize("path", ["/broken", "/nonsense", "/empty", "/slow", "/drip", "/endless", "/elsewhere"])
def test_whatever_goes_wrong_there_the_review_goes_on(endpoint, path):
    begun = time.monotonic()
    found = asked(endpoint, path)
    assert found.by == "sentences" and len(found.sentences) == 2 and "local gave no summary" in found.note
    assert time.monotonic() - begun < 2.5 and len(endpoint.asked) == 1


def test_nobody_at_home_is_no_trouble():
    found = summarize(CALL, 2, Llm("http://127.0.0.1:9/v1", "local", timeout_seconds=1.0))
    assert found.by == "sentences" and found.note
