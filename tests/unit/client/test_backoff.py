"""Backoff: a full base station refuses with 429; the replay retries, and records the wait."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from orchestrator.client import backoff
from orchestrator.client.backoff import Backoff
from orchestrator.client.client import Client
from orchestrator.prompts.prompt import ChoicePrompt
from orchestrator.results.table import render
from tests.harness.replay_stack import full, prompt, received, run


def test_a_refused_request_is_retried_when_it_may_be(client: Client) -> None:
    received.clear()
    full[:] = ["1", "0", None]
    reply = client.complete(prompt("ok"), "tiny")
    assert (reply.error, reply.text, reply.retries) == (None, " 21\u2028 #### 12", 3)
    assert len(received) == 4
    assert reply.backoff_s >= 1 + backoff.LEAST_S + backoff.DEFAULT_S
    assert reply.first_token_s is not None
    assert reply.first_token_s - reply.started_s >= reply.backoff_s


def test_a_refused_multiple_choice_is_retried(client: Client) -> None:
    full[:] = ["0"]
    prompt = ChoicePrompt(id="c", prompt="ok", answer=" a", choices=[" a", " b"], gold=0)
    assert client.choose(prompt, "tiny").retries == 1


@pytest.mark.parametrize("after", ["-1", "soon", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", "²"])
def test_a_retry_after_that_is_not_a_number_of_seconds_means_the_default(
    client: Client, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "DEFAULT_S", 0.05)
    full[:] = [after]
    reply = client.complete(prompt("ok"), "tiny")
    assert reply.error is None
    assert reply.backoff_s >= backoff.DEFAULT_S


def test_no_request_is_sent_before_the_refused_one_may_be_retried(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, again = threading.Event(), Backoff.again

    def again_and_signal(self: Backoff, refusal: httpx.Response, waited_s: float) -> bool:
        answer = again(self, refusal, waited_s)
        known.set()
        return answer

    monkeypatch.setattr(Backoff, "again", again_and_signal)
    full[:] = ["1"]
    refused = threading.Thread(target=client.complete, args=[prompt("ok refused"), "tiny"])
    refused.start()
    assert known.wait(10)
    reply = client.complete(prompt("ok other"), "tiny")
    refused.join()
    assert (reply.error, reply.retries) == (None, 0)
    assert reply.backoff_s > 0


def test_retries_end_after_the_patience(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    received.clear()
    monkeypatch.setattr(backoff, "PATIENCE_S", 0.5)
    full[:] = ["0"] * 100
    reply = client.complete(prompt("ok"), "tiny")
    assert reply.error == 'HTTP 429: {"detail":"too many requests are waiting"}'
    assert len(received) == reply.retries + 1 < 10
    assert reply.backoff_s >= 0.3


def test_a_refusal_for_longer_than_the_patience_holds_no_request_back(client: Client) -> None:
    full[:] = ["999999999"]
    assert client.complete(prompt("ok"), "tiny").error is not None
    reply = client.complete(prompt("ok"), "tiny")
    assert (reply.error, reply.retries, reply.backoff_s) == (None, 0, 0.0)


def test_a_run_records_the_wait(url: str, tmp_path: Path) -> None:
    full[:] = ["0", "0"]
    outcome = run(url, tmp_path / "run", "ok 1", "ok 2")
    first, second = outcome.requests
    assert (first.error, first.retries, second.retries, second.backoff_s) == (None, 2, 0, 0.0)
    assert first.timings is not None
    assert first.http_s is not None
    sent_s = first.actual_start_s - first.intended_start_s + first.backoff_s
    assert first.end_to_end_s == pytest.approx(sent_s + first.http_s + first.timings.end_to_end_s)
    counted = outcome.summary.backoff
    assert counted is not None
    assert (counted.requests, counted.retries) == (1, 2)
    assert counted.mean_s == counted.most_s == first.backoff_s >= 2 * backoff.LEAST_S
    (load,) = [part for part in render([outcome.summary]).renderables if "Arrivals" in str(part)]
    assert "Base station full: 1 requests held back for 0.2" in str(load)


def test_a_run_without_refusals_has_no_backoff(url: str, tmp_path: Path) -> None:
    assert run(url, tmp_path / "run", "ok").summary.backoff is None
