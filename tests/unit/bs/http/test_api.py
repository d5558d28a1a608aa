"""What all requests to the base station share: models, errors, a full queue, clients that leave."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import pytest

from tests.harness.parrot import Http, Parrot

COMPLETION = ("/v1/completions", {"prompt": "a b"})
CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b"}]})
BOTH = pytest.mark.parametrize(("path", "body"), [COMPLETION, CHAT], ids=["completion", "chat"])


def get(http: Http, path: str) -> httpx.Response:
    return httpx.get(http.url + path, trust_env=False)


def test_the_model_is_listed(http: Http) -> None:
    listed = get(http, "/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"]) == ("parrot", "model")
    assert get(http, "/v1/models/parrot").json() == model


def test_another_model_is_not_found(http: Http) -> None:
    assert get(http, "/v1/models/some/other").status_code == 404
    for path, body in (COMPLETION, CHAT):
        answer = http.post(path, body | {"model": "gpt-4"})
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "message": "model: 'gpt-4' is not served here, 'parrot' is",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


def test_an_unknown_path_answers_in_the_same_format(http: Http) -> None:
    assert get(http, "/v1/embeddings").json()["error"]["message"] == "Not Found"


@BOTH
def test_a_full_queue_says_when_to_retry(http: Http, parrot: Parrot, path: str, body: Any) -> None:
    parrot.full = True
    answer = http.post(path, body)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["type"] == "rate_limit_error"


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_event_is_a_503(
    http: Http, parrot: Parrot, path: str, body: Any, stream: bool
) -> None:
    parrot.fails = "no device can be reached"
    assert http.refused(path, body | {"stream": stream}, 503) == parrot.fails


@BOTH
def test_a_failure_in_a_stream_ends_it_with_the_error(
    http: Http, parrot: Parrot, path: str, body: Any
) -> None:
    parrot.fails, parrot.said_before_failing = "a device is gone", 1
    lines = http.post(path, body | {"stream": True}).text.split("\n\n")
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["message"] == parrot.fails


@BOTH
@pytest.mark.parametrize("lost", [0, 7])
def test_a_client_sees_how_many_experts_its_tokens_lost(
    http: Http, parrot: Parrot, path: str, body: Any, lost: int
) -> None:
    parrot.lost = lost
    reply = http.post(path, body)
    assert reply.headers["x-wdmoe-experts-lost"] == str(lost)
    lines = http.post(path, body | {"stream": True}).text.split("\n\n")
    (last,) = (
        chunk
        for chunk in (json.loads(line.removeprefix("data: ")) for line in lines[:-2])
        if chunk["choices"][0]["finish_reason"]
    )
    for payload in (reply.json(), last):
        assert payload.get("experts_lost") == (lost or None)


def test_a_body_that_is_too_large_is_refused_unread(http: Http) -> None:
    assert "at most" in http.refused("/v1/completions", {"prompt": "a" * (8 << 20)}, 413)


def test_errors_have_one_line(http: Http) -> None:
    reply = http.post("/v1/completions", {"prompt": "a", "x\ny": 1, "strict": True})
    assert reply.status_code == 400
    assert "\n" not in reply.json()["error"]["message"]


def test_half_a_surrogate_pair_is_refused(http: Http) -> None:
    body, kind = b'{"prompt": "\\ud800"}', {"content-type": "application/json"}
    with httpx.Client(base_url=http.url, trust_env=False) as client:
        reply = client.post("/v1/completions", content=body, headers=kind)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("prompt: allowed: a text")


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_request(
    http: Http, parrot: Parrot, path: str, body: Any, stream: bool
) -> None:
    parrot.go.clear()
    with (
        httpx.Client(base_url=http.url, trust_env=False, timeout=0.5) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post(path, json=body | {"stream": stream})
    deadline = time.monotonic() + 10
    while not (parrot.requests and parrot.requests[0].cancelled):
        assert time.monotonic() < deadline, "the request was not cancelled"
        time.sleep(0.01)
    parrot.go.set()
    assert http.post(path, body).status_code == 200


def test_a_client_that_leaves_ends_its_probes(http: Http, parrot: Parrot) -> None:
    body = {"device": 1, "size_bytes": 100, "count": 100}
    with (
        httpx.Client(base_url=http.url, trust_env=False, timeout=0.5) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post("/probe", json=body)
    deadline = time.monotonic() + 10
    while not (parrot.probes and parrot.probes[0].cancelled):
        assert time.monotonic() < deadline, "the probes were not cancelled"
        time.sleep(0.01)


def test_a_failed_probe_reports_the_reason(http: Http, parrot: Parrot) -> None:
    def fail() -> None:
        while not parrot.probes:
            time.sleep(0.01)
        parrot.probes[0].deliver("device-1 does not answer")

    thread = threading.Thread(target=fail)
    thread.start()
    body = {"device": 1, "size_bytes": 100, "count": 100}
    assert http.refused("/probe", body, 503) == "device-1 does not answer"
    thread.join()


def test_a_connection_serves_one_request_after_another(http: Http, parrot: Parrot) -> None:
    for _ in range(3):
        assert http.complete("a b")["choices"][0]["text"] == "a b"
    assert [request.cancelled for request in parrot.requests] == [False] * 3
