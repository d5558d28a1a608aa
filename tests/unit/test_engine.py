"""The engine: a request from the queue to its end."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from orchestrator.metrics import bs_metrics
from orchestrator.replay import records
from orchestrator.state import PolicyState
from services.bs.engine import End, Engine, Event, Request
from services.bs.policies import Policies
from services.bs.prober import Prober, ProbeRequest, Probes
from tests.unit.conftest import CPU, EXPERTS, Cell, emulating, trunk

LIMITED = """\
from orchestrator.selection import Gate, Policy, Selection
from orchestrator.selection.topk import TopK


class Limited(Policy):
    \"\"\"With a parameter that may have no value.\"\"\"

    limit: int | None = None
    share: float = 0.5

    def select(self, gate: Gate) -> Selection:
        return TopK().select(gate)
"""


class StopError(Exception):
    """Ends the engine."""


def stop(_: Probes | None) -> None:
    raise StopError


def run(engine: Engine) -> None:
    """In a thread of its own, as it lowers its priority."""
    with contextlib.suppress(StopError):
        engine.run()


def test_a_parameter_without_a_value_is_not_told(cell: Cell, folder: Path) -> None:
    (folder / "limited.py").write_text(LIMITED)
    cell.channel.state = replace(emulating(flops=1e12), policy=PolicyState("limited"))
    for q in range(EXPERTS):
        cell.start(q)
    cell.admit(*range(EXPERTS))
    metrics = bs_metrics(CollectorRegistry())
    policies = Policies(cell.checkpoint.info, CPU, metrics)
    prober = Prober(cell.dispatcher, cell.channel, curve=False)
    engine = Engine(
        *(trunk(cell), cell.dispatcher, prober, cell.channel, policies),
        decode=str,
        end_tokens=frozenset(),
        metrics=metrics,
        context=cell.context,
    )
    events: queue.Queue[Event] = queue.Queue()
    request = Request("r", [1, 2], 2, 0.0, None, (), False, False, events.put)
    engine.submit(request)
    engine.submit(ProbeRequest(0, 1, 0, stop))
    thread = threading.Thread(target=run, args=[engine])
    thread.start()
    thread.join()
    while not isinstance(event := events.get(timeout=1), End):
        pass
    policy = event.timings["policy"]
    assert policy == {"name": "limited", "params": {"share": 0.5}}
    assert records.Policy.model_validate(policy).label == "limited"
