"""The send loop: prompts go out when they are due, from a bounded number of sender threads.

    sender 0   waits for its start ─► sends ─────────────► takes the next prompt
    sender 1        its turn ─► waits for its start ─► sends ───► …
    sender 2             its turn ─► …

One sender at a time takes the next prompt and waits until it is due; then the next sender has its
turn, however long the first one's answer takes. If all are busy, a prompt goes out late, but its
latency still counts from when it was due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeAlias

from orchestrator.client.client import now_s
from orchestrator.prompts.prompt_sets import Prompt
from orchestrator.results.schema import Request

Answer: TypeAlias = tuple[Request, bytes | None]
Ask: TypeAlias = Callable[[int, Prompt, float], Answer]


@dataclass(frozen=True)
class Due:
    """A prompt with its number in the set and its intended start [Unix s].

    `start_s` None: as soon as a sender is free.
    """

    number: int
    prompt: Prompt
    start_s: float | None = None


def send(due: Sequence[Due], ask: Ask, senders: int) -> Iterator[Answer]:
    """Send each prompt when it is due, at most `senders` at a time; yield answers as they arrive.

    Args:
        due: in the order of their starts.
        ask: called from several threads with number, prompt and intended start; an exception ends
            the sending and is raised here.
        senders: the number of threads.

    Closing the iterator stops the sending; answers under way are not waited for.
    """
    ended: SimpleQueue[Answer | Exception] = SimpleQueue()
    left, turn, stopped = iter(due), Lock(), Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                with turn:
                    item = next(left, None)
                    if item is None:
                        return
                    start_s = now_s() if item.start_s is None else item.start_s
                    if stopped.wait(start_s - now_s()):
                        return
                ended.put(ask(item.number, item.prompt, start_s))
            except Exception as error:
                stopped.set()
                ended.put(error)

    for number in range(min(senders, len(due))):
        Thread(target=work, name=f"sender-{number}", daemon=True).start()
    try:
        for _ in due:
            answer = ended.get()
            if isinstance(answer, Exception):
                raise answer
            yield answer
    finally:
        stopped.set()
