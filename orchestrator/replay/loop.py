"""The replay itself: which prompt goes out when. Each arrival process is one generator here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.replay.ask import ask
from orchestrator.replay.client import Client, now_s
from orchestrator.replay.prompt_sets import Prompt
from orchestrator.replay.records import Request


def closed_loop(
    prompts: Iterable[tuple[int, Prompt]], client: Client, model: str, *, routing: bool = False
) -> Iterator[tuple[Request, bytes | None]]:
    """One request at a time, each intended to start when the one before it has ended.

    Takes prompts with their numbers in the set; gives each request and, if asked, its routing.
    """
    for number, prompt in prompts:
        yield ask(number, prompt, client, model, now_s(), routing=routing)
