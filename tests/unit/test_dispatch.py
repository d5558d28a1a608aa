"""The base station's dispatcher against real device servers over real sockets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq
from prometheus_client import CollectorRegistry
from transformers import MixtralConfig, MixtralForCausalLM

from orchestrator.checkpoint import Checkpoint
from orchestrator.metrics import bs_metrics
from orchestrator.state import ChannelState, DeviceState, Direction, Emulation
from services import settings, wire
from services.bs.channel import ChannelWatch
from services.bs.dispatch import Dispatcher
from services.bs.meter import Meter
from services.bs.roster import Roster
from services.bs.trunk import Trunk
from services.device.experts import Experts
from services.device.server import DeviceServer

CPU = torch.device("cpu")
EXPERTS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    config = MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=EXPERTS,
    )
    folder = tmp_path_factory.mktemp("model")
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


class Channel(ChannelWatch):
    """A channel watch whose state the test sets."""

    state: ChannelState | None = None

    def take_in(self) -> None:
        """Hear nothing: no orchestrator runs in these tests."""

    def current(self) -> ChannelState | None:
        return self.state


@dataclass
class Cell:
    """A base station and its devices."""

    folder: Path
    checkpoint: Checkpoint
    dispatcher: Dispatcher
    roster: Roster
    channel: Channel
    registry: CollectorRegistry
    context: Any
    port: int

    def socket(self, q: int) -> Any:
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, f"device-{q}".encode())
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"tcp://127.0.0.1:{self.port}")
        return dealer

    def hello(self, q: int) -> wire.Hello:
        info = self.checkpoint.info
        fingerprint = self.checkpoint.fingerprint
        return wire.Hello(wire.PROTOCOL, q, fingerprint, q, info.layers, info.hidden_size)

    def start(self, q: int) -> None:
        """A real device, served in the background."""
        experts = Experts(self.checkpoint, q, CPU, torch.float32)
        server = DeviceServer(self.socket(q), self.hello(q), experts, self.channel.current)
        threading.Thread(target=_serve, args=[server], daemon=True).start()

    def say(self, socket: Any, message: wire.Message) -> wire.Message:
        """Send as a device, let the base station read, and return its answer."""
        socket.send_multipart(wire.encode(message))
        return self.answer(socket)

    def answer(self, socket: Any) -> wire.Message:
        for _ in range(100):
            self.dispatcher.take_in()
            if socket.poll(20):
                return wire.decode(socket.recv_multipart())
        raise AssertionError("no answer")

    def admit(self, *devices: int) -> None:
        for _ in range(200):
            self.dispatcher.take_in()
            if all(self.roster.devices[q].admitted for q in devices):
                return
            self.dispatcher.socket.poll(50)
        raise AssertionError("not admitted")

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def _serve(server: DeviceServer) -> None:
    with contextlib.suppress(zmq.ZMQError):  # the test has ended
        server.run()


@pytest.fixture
def cell(folder: Path) -> Iterator[Cell]:
    conf = replace(
        settings.load(), curve=False, devices=EXPERTS, wire_dtype="fp32", device_timeout_s=1.5
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    registry = CollectorRegistry()
    metrics = bs_metrics(registry)
    checkpoint = Checkpoint(folder)
    channel = Channel(replace(conf, orchestrator_host="127.0.0.1"), metrics, context)
    roster = Roster(conf, checkpoint.info, checkpoint.fingerprint, metrics)
    dispatcher = Dispatcher(router, conf, checkpoint.info, roster, channel, metrics)
    yield Cell(folder, checkpoint, dispatcher, roster, channel, registry, context, port)
    context.destroy(linger=0)


def run_layer(cell: Cell, index: list[list[int]], weight: list[list[float]]) -> Any:
    """One layer over len(index) tokens: the inputs, the output, and the meter."""
    torch.manual_seed(1)
    hidden = torch.randn(len(index), 16)
    meter = Meter()
    output = cell.dispatcher.layer(1, hidden, torch.tensor(index), torch.tensor(weight), meter)
    return hidden, output, meter


def expert(cell: Cell, q: int, hidden: torch.Tensor) -> torch.Tensor:
    return Experts(cell.checkpoint, q, CPU, torch.float32)(1, hidden)


def test_the_split_model_computes_what_the_whole_one_does(cell: Cell) -> None:
    for q in range(EXPERTS):
        cell.start(q)
    cell.admit(*range(EXPERTS))
    trunk = Trunk(cell.checkpoint, cell.dispatcher, CPU, torch.float32)
    whole = MixtralForCausalLM.from_pretrained(cell.folder, dtype=torch.float32)
    ids = [3, 14, 15, 9, 26, 5, 35]
    cache = trunk.cache()
    rows = [trunk.forward(ids[:4], cache), *(trunk.forward([i], cache) for i in ids[4:])]
    with torch.inference_mode():
        expected = whole(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(torch.cat(rows), expected, atol=1e-5, rtol=1e-5)
    assert sum(trunk.meter.used.values()) == len(ids) * 2 * 2
    assert trunk.meter.dropped == {}


def test_outputs_are_summed_by_weight(cell: Cell) -> None:
    cell.start(0)
    cell.start(2)
    cell.admit(0, 2)
    hidden, output, meter = run_layer(cell, [[0, 2], [2, 4]], [[0.75, 0.25], [1.0, 0.0]])
    both, one = expert(cell, 0, hidden), expert(cell, 2, hidden)
    expected = torch.stack([0.75 * both[0] + 0.25 * one[0], one[1]])
    torch.testing.assert_close(output, expected)
    assert meter.used == {0: 1, 2: 2}
    assert meter.device_messages == 2


def test_a_device_that_was_never_there_costs_its_share_only(cell: Cell) -> None:
    cell.start(0)
    cell.admit(0)
    hidden, output, meter = run_layer(cell, [[0, 3]], [[0.6, 0.4]])
    torch.testing.assert_close(output, expert(cell, 0, hidden))
    assert meter.dropped == {3: 1}
    reason = {"device": "3", "reason": "unreachable"}
    assert cell.counted("wdmoe_expert_dropped_total", **reason) == 1


def test_a_device_that_falls_silent_with_work_in_hand_is_given_up(cell: Cell) -> None:
    cell.start(0)
    mute = cell.socket(1)
    assert cell.say(mute, cell.hello(1)) == wire.Welcome()
    cell.admit(0, 1)
    hidden, output, meter = run_layer(cell, [[0, 1], [1, 4]], [[0.6, 0.4], [1.0, 0.0]])
    torch.testing.assert_close(output[0], expert(cell, 0, hidden)[0])
    assert torch.equal(output[1], torch.zeros(16))
    assert meter.dropped == {1: 2}
    assert not cell.roster.devices[1].admitted
    assert cell.counted("wdmoe_device_up", device="1") == 0
    work = wire.decode(mute.recv_multipart())
    assert isinstance(work, wire.Work)
    assert cell.say(mute, wire.Beat()) == wire.Identify()
    assert cell.say(mute, cell.hello(1)) == wire.Welcome()


def fake_answer(work: wire.Work, **changes: Any) -> wire.Done:
    y = wire.Payload.of(torch.ones(work.x.shape), "fp32")
    fields = {"id": work.id, "y": y, "pad": b"", "overrun": False}
    times = {"received_s": 1.0, "started_s": 2.0, "finished_s": 3.0, "sent_s": 4.0}
    return wire.Done(**{**fields, **times, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"y": wire.Payload.of(torch.ones(2, 16), "fp32")},
        {"y": wire.Payload.of(torch.ones(1, 15), "fp32")},
        {"y": wire.Payload.of(torch.full((1, 16), float("nan")), "fp32")},
        {"started_s": 0.5},
    ],
    ids=["too many rows", "too narrow", "not finite", "times out of order"],
)
def test_an_answer_that_cannot_be_right_is_dropped_and_counted(
    cell: Cell, changes: dict[str, Any]
) -> None:
    cell.start(0)
    liar = cell.socket(1)
    assert cell.say(liar, cell.hello(1)) == wire.Welcome()
    cell.admit(0, 1)

    def lie() -> None:
        work = wire.decode(liar.recv_multipart())
        assert isinstance(work, wire.Work)
        liar.send_multipart(wire.encode(fake_answer(work, **changes)))

    threading.Thread(target=lie, daemon=True).start()
    hidden, output, meter = run_layer(cell, [[0, 1]], [[0.5, 0.5]])
    torch.testing.assert_close(output, expert(cell, 0, hidden))
    assert meter.dropped == {1: 1}
    assert cell.counted("wdmoe_refused_messages_total", reason="answer") == 1


def test_an_answer_to_no_question_is_counted_and_ignored(cell: Cell) -> None:
    device = cell.socket(1)
    cell.say(device, cell.hello(1))
    work = wire.Work(77, 0, wire.Payload.of(torch.ones(1, 16), "fp32"), b"")
    device.send_multipart(wire.encode(fake_answer(work)))
    assert cell.say(device, cell.hello(1)) == wire.Welcome()
    assert cell.counted("wdmoe_refused_messages_total", reason="late") == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("fingerprint", "another"), ("expert", 2), ("layers", 3), ("hidden_size", 8), ("device", 2)],
)
def test_a_device_that_does_not_fit_is_told_which_field(cell: Cell, field: str, value: Any) -> None:
    hello = replace(cell.hello(1), **{field: value})
    answer = cell.say(cell.socket(1), hello)
    assert isinstance(answer, wire.Refused)
    assert answer.reason.startswith(f"{field} is {value!r}")
    assert not cell.roster.devices[1].admitted
    assert cell.roster.devices[1].refused == answer.reason


def test_noise_is_counted_and_the_connection_survives(cell: Cell) -> None:
    device = cell.socket(1)
    for frames in ([b"noise"], [b""], [b"\x80"] * 9, [b"x" * 100_000]):
        device.send_multipart(frames)
    assert cell.say(device, cell.hello(1)) == wire.Welcome()
    assert (
        sum(
            cell.counted("wdmoe_refused_messages_total", reason=reason)
            for reason in ("malformed", "frames", "size")
        )
        == 4
    )


def test_a_sender_that_is_no_device_of_the_stack_is_ignored(cell: Cell) -> None:
    stranger = cell.socket(EXPERTS)
    stranger.send_multipart(wire.encode(cell.hello(0)))
    known = cell.socket(1)
    assert cell.say(known, cell.hello(1)) == wire.Welcome()
    cell.dispatcher.socket.poll(200)
    cell.dispatcher.take_in()
    assert not stranger.poll(100)
    assert cell.counted("wdmoe_refused_messages_total", reason="identity") == 1


def emulating(flops: float, rate_bps: float | None = None) -> ChannelState:
    link = Direction(rate_bps=rate_bps)
    device = DeviceState(down=link, up=link, flops=flops)
    emulate = Emulation(hidden_size=4096, intermediate_size=14336, bits_per_element=16)
    return ChannelState(1, 0, 0.0, "test", "0" * 64, (device,) * EXPERTS, emulate)


def test_an_emulated_model_pads_the_wire_and_holds_the_answer_back(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e10)
    cell.start(0)
    cell.admit(0)
    _, _, meter = run_layer(cell, [[0, 4]] * 3, [[1.0, 0.0]] * 3)
    tokens, bits, flop = 3, 65_536, 6 * 4096 * 14336 + 5 * 14336
    assert meter.compute_s == pytest.approx(tokens * flop / 1e10, rel=0.1)
    assert meter.overruns == 0
    for direction in ("down", "up"):
        labels = {"device": "0", "direction": direction}
        sent = cell.counted("wdmoe_radio_bytes_total", **labels)
        assert tokens * bits / 8 <= sent <= tokens * bits / 8 + 300


def test_an_answer_later_than_the_emulated_devices_is_an_overrun(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e18)
    cell.start(0)
    cell.admit(0)
    _, _, meter = run_layer(cell, [[0, 4]], [[1.0, 0.0]])
    assert meter.overruns == 1
    assert cell.counted("wdmoe_overruns_total", device="0") == 1


def test_eq8_adds_up_the_slowest_expert_of_every_token(cell: Cell) -> None:
    slow = emulating(flops=1e12, rate_bps=1e9)
    fast = DeviceState(down=Direction(rate_bps=4e9), up=Direction(rate_bps=2e9), flops=2e12)
    cell.channel.state = replace(slow, devices=(fast, *slow.devices[1:]))
    for q in (0, 1):
        cell.start(q)
    cell.admit(0, 1)
    _, _, meter = run_layer(cell, [[0, 1], [0, 4]], [[0.5, 0.5], [1.0, 0.0]])
    flop = 6 * 4096 * 14336 + 5 * 14336
    t_0 = 65_536 / 4e9 + flop / 2e12 + 65_536 / 2e9
    t_1 = 65_536 / 1e9 + flop / 1e12 + 65_536 / 1e9
    assert meter.eq8_s == pytest.approx(t_1 + t_0, rel=1e-9)


def test_a_device_in_outage_is_not_used(cell: Cell) -> None:
    state = emulating(flops=1e12)
    gone = replace(state.devices[2], reachable=False)
    cell.channel.state = replace(state, devices=(*state.devices[:2], gone, state.devices[3]))
    for q in range(EXPERTS):
        cell.start(q)
    cell.admit(*range(EXPERTS))
    assert cell.dispatcher.reachable().tolist() == [True, True, False, True]
    trunk = Trunk(cell.checkpoint, cell.dispatcher, CPU, torch.float32)
    trunk.forward(list(range(20)), trunk.cache())
    assert 2 not in trunk.meter.used
    assert trunk.meter.dropped.keys() == {2}
    outage = {"device": "2", "reason": "outage"}
    assert cell.counted("wdmoe_expert_dropped_total", **outage) == trunk.meter.dropped[2]
