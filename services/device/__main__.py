"""A device: `python -m services.device` loads its experts, shapes its link, and serves."""

from __future__ import annotations

import gc
import signal
import sys
from functools import partial

import torch
import zmq

from orchestrator.errors import InputError, StackError
from orchestrator.metrics import device_metrics
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.process import build
from orchestrator.process.threads import end_process_with_any_thread
from services import settings
from services.device import http
from services.device.expert_server import DeviceServer
from services.device.experts import Experts
from services.device.link.agent import LinkAgent
from services.device.link.shaper import Shaper
from services.net import radio_interface, wire
from services.net.curve import secure_client


def main() -> None:
    """Run until SIGTERM, or until the base station refuses this device."""
    # Keep the link agent from waiting for a thread that writes metrics, by default for up to 5 ms.
    sys.setswitchinterval(0.0001)
    conf = settings.load()
    device = settings.integer("WDMOE_DEVICE", None, least=0, most=conf.devices - 1)
    torch.set_num_threads(1)  # eight devices share the host's cores
    checkpoint = Checkpoint(conf.model_dir)
    experts = Experts(checkpoint, device, conf.torch_device, conf.compute_dtype)
    metrics = device_metrics()
    metrics.expert_weight_bytes.set(experts.weight_bytes)

    shaper = Shaper(
        partial(radio_interface.interface_towards, radio_interface.resolve(conf.bs_radio_host))
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    agent = LinkAgent(conf, device, shaper, metrics, context)
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, f"device-{device}".encode())
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a base station that is away
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
    if conf.curve:
        secure_client(socket, conf, f"device-{device}", "bs")
    hello = wire.Hello(
        protocol=wire.PROTOCOL,
        device=device,
        fingerprint=checkpoint.fingerprint,
        expert=device,
        layers=checkpoint.info.layers,
        hidden_size=checkpoint.info.hidden_size,
        build=build.describe().device_line,
    )
    server = DeviceServer(socket, hello, experts, lambda: agent.current, agent)

    def health() -> http.Health:
        return http.Health(device, server.admitted, shaper.backend, agent.fault())

    gc.freeze()  # otherwise a collection of torch's objects may take 0.1 s at any moment
    http.serve(health)
    agent.start()
    print(
        f"device-{device}: {experts.weight_bytes} bytes of experts, {shaper.backend}; "
        "waiting for the channel state",
        flush=True,
    )
    agent.shaped.wait()  # not a byte crosses the radio before its link is shaped
    socket.connect(f"tcp://{conf.bs_radio_host}:{settings.RADIO_PORT}")
    server.run()


def _stop(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    end_process_with_any_thread("device")
    try:
        main()
    except (InputError, StackError) as error:
        print(f"device: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
