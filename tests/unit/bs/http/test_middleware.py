"""HTTP around the base station's routes: HEAD, OPTIONS, CORS, bodies in chunks, idle clients."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from orchestrator.errors import InputError
from services import settings
from services.bs.http.app import create
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.middleware import MAX_BODY_BYTES
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness import answers
from tests.harness.parrot import FOLDER, Http, Parrot, tokenizer
from tests.harness.serving import serve

pytestmark = pytest.mark.slow

PAGE = "http://page.example:3000"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,authorization,x-stainless-os",
}


@pytest.fixture
def open_to_pages() -> Iterator[str]:
    """A base station that a page of PAGE may use."""
    desk = ServedModel(Parrot(), ModelTokenizer(tokenizer()), "parrot", 64, words=912)
    app = create(desk, ChatTemplate(FOLDER), 8, answers.health, [PAGE])
    with serve(app) as url:
        yield url


def call(method: str, url: str, **options: object) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        return client.request(method, url, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["/health", "/healthz", "/v1/models", "/v1/models/parrot", "/metrics"]
)
def test_head_is_get_without_its_body(http: Http, path: str) -> None:
    head, get = (call(method, http.url + path) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


def test_head_of_a_missing_or_posted_path_has_the_status_of_get(http: Http) -> None:
    assert call("HEAD", f"{http.url}/v1/models/other").status_code == 404
    assert call("HEAD", f"{http.url}/v1/completions").status_code == 405


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/models", {"GET", "HEAD", "OPTIONS"}), ("/v1/completions", {"POST", "OPTIONS"})],
)
def test_allowed_methods_are_listed(http: Http, path: str, allowed: set[str]) -> None:
    options, put = (call(method, http.url + path) for method in ("OPTIONS", "PUT"))
    assert (options.status_code, options.content, put.status_code) == (204, b"", 405)
    for answer in (options, put):
        assert set(answer.headers["allow"].split(", ")) == allowed
    assert put.json()["error"]["message"] == "Method Not Allowed"
    assert call("OPTIONS", f"{http.url}/v1/embeddings").status_code == 404


def test_no_page_may_read_answers_unless_it_is_allowed(http: Http, open_to_pages: str) -> None:
    for headers in (PREFLIGHT, {"Origin": PAGE}):
        answer = call("OPTIONS", f"{http.url}/v1/completions", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    other = PREFLIGHT | {"Origin": "http://other.example"}
    answer = call("OPTIONS", f"{open_to_pages}/v1/completions", headers=other)
    assert "access-control-allow-origin" not in answer.headers


def test_an_allowed_page_may_post_and_read_headers_and_errors(open_to_pages: str) -> None:
    preflight = call("OPTIONS", f"{open_to_pages}/v1/completions", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    for prompt, status in (("a", 200), (3, 400)):
        body = {"prompt": prompt, "colour": 1}
        answer = call(
            "POST", f"{open_to_pages}/v1/completions", json=body, headers={"Origin": PAGE}
        )
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("http://a:3000, https://b.example", ("http://a:3000", "https://b.example")),
    ],
)
def test_origins_are_a_setting(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WDMOE_CORS_ORIGINS", text)
    assert settings.load().cors_origins == origins


@pytest.mark.parametrize("text", ["localhost:3000", "http://a/", "http://*.example", "*,http://a"])
def test_an_invalid_origin_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WDMOE_CORS_ORIGINS", text)
    with pytest.raises(InputError, match=r"WDMOE_CORS_ORIGINS is .* allowed: "):
        settings.load()


def test_a_body_may_come_in_chunks(http: Http) -> None:
    text = json.dumps({"prompt": "a b"}).encode()
    answer = call("POST", f"{http.url}/v1/completions", content=iter([text[:5], text[5:]]))
    assert "content-length" not in answer.request.headers
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] == "a b"


def test_chunks_are_bounded_too(http: Http) -> None:
    block = b" " * (1 << 20)
    blocks = iter([block] * (MAX_BODY_BYTES // len(block) + 1))
    answer = call("POST", f"{http.url}/v1/completions", content=blocks)
    assert answer.status_code == 413
    assert "at most" in answer.json()["error"]["message"]
    assert http.complete("a b")["choices"][0]["text"] == "a b"


def test_a_client_may_be_idle_for_longer_than_a_server_waits_by_default() -> None:
    command = [sys.executable, "-m", "tests.harness.idle_station"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            connection = http.client.HTTPConnection("127.0.0.1", int(process.stdout.readline()))
            for pause_s in (6, 0):
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                assert response.getheader("connection") != "close"
                time.sleep(pause_s)
                assert connection.sock is not None
            connection.close()
        finally:
            process.terminate()
