"""The one assembly of a base station: for the process, for tests and for benchmarks.

router ─► Dispatcher ─► LayerMetrics ─► LatencyEstimator ─► Selector ─┐
             └──────────────────────► Trunk ◄─────────────────────────┘
                                        └─► Engine ◄─ Prober, PolicyInForce
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from orchestrator.metrics import BsMetrics
from orchestrator.moe.checkpoint import Checkpoint
from services.bs.engine.engine import Engine
from services.bs.engine.trunk import Trunk
from services.bs.experts.devices import Devices
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.latency_estimator import LatencyEstimator
from services.bs.experts.layer_metrics import LayerMetrics
from services.bs.experts.policy_in_force import PolicyInForce
from services.bs.experts.prober import Prober
from services.bs.experts.selector import Selector
from services.net import wire
from services.net.channel_feed import ChannelFeed
from services.net.curve import secure_server
from services.settings import Settings


def open_router(context: zmq.Context[zmq.Socket[bytes]], conf: Settings) -> zmq.Socket[bytes]:
    """Return the socket of the radio, not bound yet."""
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # sending to an absent device is an error
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted device takes its name over
    router.setsockopt(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
    if conf.curve:
        secure_server(router, conf, "bs")
    return router


@dataclass(frozen=True)
class BaseStation:
    """The parts of a base station that has no engine yet; `channel` is what it hears."""

    conf: Settings
    checkpoint: Checkpoint
    context: zmq.Context[zmq.Socket[bytes]]
    metrics: BsMetrics
    channel: ChannelFeed
    devices: Devices
    layer_metrics: LayerMetrics
    dispatcher: Dispatcher
    selector: Selector

    def trunk(self) -> Trunk:
        """Load the model without its experts."""
        conf = self.conf
        return Trunk(
            self.checkpoint,
            self.selector,
            self.dispatcher,
            self.layer_metrics,
            conf.torch_device,
            conf.compute_dtype,
        )

    def engine(
        self,
        trunk: Trunk,
        decode: Callable[[Sequence[int]], str],
        end_tokens: frozenset[int],
        kv_bytes: int,
    ) -> Engine:
        """Return the engine, not started yet; `kv_bytes` is the memory for keys and values."""
        conf = self.conf
        return Engine(
            trunk,
            self.dispatcher,
            Prober(self.dispatcher, self.channel, conf.curve),
            self.channel,
            PolicyInForce(self.checkpoint.info, conf.torch_device, self.metrics),
            decode=decode,
            end_tokens=end_tokens,
            metrics=self.metrics,
            context=self.context,
            kv_bytes=kv_bytes,
        )


def build(
    conf: Settings,
    checkpoint: Checkpoint,
    *,
    context: zmq.Context[zmq.Socket[bytes]],
    router: zmq.Socket[bytes],
    channel: ChannelFeed,
    metrics: BsMetrics,
) -> BaseStation:
    """Assemble a base station around a bound `router` and the `channel` that it hears."""
    info = checkpoint.info
    devices = Devices(conf, info, checkpoint.fingerprint, metrics)
    estimator = LatencyEstimator(info, conf.wire_dtype)
    layer_metrics = LayerMetrics(metrics, estimator, info)
    return BaseStation(
        conf=conf,
        checkpoint=checkpoint,
        context=context,
        metrics=metrics,
        channel=channel,
        devices=devices,
        layer_metrics=layer_metrics,
        dispatcher=Dispatcher(router, conf, info, devices, channel, metrics),
        selector=Selector(devices, channel, estimator),
    )
