"""The base station: `python -m services.bs`. Loads the trunk, opens the radio, serves HTTP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import uvicorn
import zmq

from orchestrator.contracts.http import Build, Health, Model
from orchestrator.errors import InputError, StackError
from orchestrator.metrics import bs_metrics
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.moe.model_folder import end_tokens, load_tokenizer
from orchestrator.process.build import describe
from orchestrator.process.threads import end_process_with_any_thread
from services import settings
from services.bs.build import build, open_router
from services.bs.engine import kv_memory
from services.bs.http import app
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from services.net import radio_interface
from services.net.channel_feed import ChannelFeed

if TYPE_CHECKING:
    from services.bs.tracing.otlp import OtlpTraces

# Longer than clients and proxies keep an unused connection: they would send on one just closed.
KEEP_ALIVE_S = 75
OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def main() -> None:
    """Serve until SIGTERM."""
    conf = settings.load()
    checkpoint = Checkpoint(conf.model_dir)
    info = checkpoint.info
    if info.experts != conf.devices:
        raise InputError(
            f"{conf.model_dir}: the checkpoint has {info.experts} experts, "
            f"WDMOE_DEVICES is {conf.devices}; each device holds one expert"
        )
    tokenizer = load_tokenizer(conf.model_dir)
    ends = end_tokens(conf.model_dir, tokenizer)
    vocabulary = ModelTokenizer(tokenizer)
    template = ChatTemplate(conf.model_dir)
    metrics = bs_metrics()
    metrics.model.info(
        {
            "name": conf.model_name,
            "fingerprint": checkpoint.fingerprint,
            "wire_dtype": conf.wire_dtype,
            **{key: str(value) for key, value in vars(info).items()},
        }
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    address = radio_interface.resolve(conf.bs_radio_host)
    radio_interface.pin_segmentation(radio_interface.interface(address))
    router = open_router(context, conf)
    _bind(router, address)

    def count_invalid(_: ValueError) -> None:
        metrics.refused_messages_total.labels("state").inc()

    station = build(
        conf,
        checkpoint,
        context=context,
        router=router,
        channel=ChannelFeed(conf, "bs", count_invalid, context),
        metrics=metrics,
    )
    trunk = station.trunk()
    kv_bytes = kv_memory.kv_bytes(conf.kv_mib, conf.torch_device)
    engine = station.engine(trunk, vocabulary.decode, ends, kv_bytes)

    own = describe()

    def health() -> Health:
        return Health(
            status="ok" if engine.is_alive() else "engine stopped",
            model=Model(name=conf.model_name, fingerprint=checkpoint.fingerprint, **vars(info)),
            context_length=min(trunk.context_length, engine.positions),
            kv_bytes=kv_bytes,
            trunk_weight_bytes=trunk.weight_bytes,
            wire_dtype=conf.wire_dtype,
            compute_dtype=conf.compute_dtype_name,
            device_timeout_s=conf.device_timeout_s,
            curve=conf.curve,
            torch_device=str(conf.torch_device),
            tcp_congestion_control=radio_interface.congestion_control(),
            build=Build(**asdict(own)),
            device_build=own.device_line,
            devices=station.devices.describe(),
        )

    engine.start()
    print(f"bs: {conf.model_name}, {trunk.weight_bytes} bytes of trunk; serving", flush=True)
    lengths = trunk.context_length, trunk.words
    traces = otlp(conf.model_name)
    served = ServedModel(engine, vocabulary, conf.model_name, *lengths, traces)
    serve(app.create(served, template, conf.devices, health, conf.cors_origins), traces)


def serve(app: Callable[..., Any], traces: OtlpTraces | None) -> None:
    """Serve HTTP until SIGTERM, and export the last traces then."""
    if traces is not None:

        def end(number: int, frame: object) -> NoReturn:
            traces.close()
            os._exit(128 + number)  # as without a handler: no thread is waited for

        # uvicorn raises the signal again when it has ended, and by default that skips atexit.
        signal.signal(signal.SIGTERM, end)
    uvicorn.run(
        app,
        host="0.0.0.0",
        port=settings.BS_HTTP_PORT,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
    )


def _bind(router: zmq.Socket[bytes], address: str) -> None:
    try:
        router.bind(f"tcp://{address}:{settings.RADIO_PORT}")
    except zmq.ZMQError as error:
        raise StackError(f"radio port {settings.RADIO_PORT} on {address}: {error}") from None


def otlp(model: str) -> OtlpTraces | None:
    """Where traces go; None unless OpenTelemetry's variable names a collector."""
    endpoint = os.environ.get(OTLP_ENDPOINT)
    if not endpoint:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(
            f"{OTLP_ENDPOINT} is {endpoint!r}, allowed: http://HOST:PORT, https://HOST:PORT"
        )
    from services.bs.tracing.otlp import OtlpTraces  # takes time to load

    return OtlpTraces(model)


if __name__ == "__main__":
    end_process_with_any_thread("bs")
    try:
        main()
    except (InputError, StackError) as error:
        print(f"bs: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
