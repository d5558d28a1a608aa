"""The orchestrator's HTTP interface, on the control network: health, metrics, what is in force."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError

from orchestrator.contracts import channel_state, replay_progress
from orchestrator.contracts.http import (
    Build,
    Interval,
    Orchestrator,
    PolicyRequest,
    ProfileRequest,
    ProfileText,
    Status,
)
from orchestrator.contracts.replay_progress import Progress
from orchestrator.contracts.verification import Verification
from orchestrator.control.plane import ControlPlane
from orchestrator.errors import InputError, StackError, first_fault
from orchestrator.files import strict_yaml
from orchestrator.process import build
from orchestrator.radio import link_trace, profiles

_Body = TypeVar("_Body", bound=BaseModel)

HTTP_PORT = 8080
# JSON may write a character in six, but those of a trace in two at most.
MAX_BODY_BYTES = 6 * strict_yaml.MAX_BYTES + 2 * link_trace.MAX_BYTES + 1024


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    devices: int
    keys_dir: Path | None
    state_dir: Path
    profile: str

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment; InputError names the variable that is wrong."""
        devices = os.environ.get("WDMOE_DEVICES", "8")
        if not devices.isdecimal() or not 1 <= int(devices) <= channel_state.MAX_DEVICES:
            raise InputError(
                f"WDMOE_DEVICES is {devices!r}; allowed: 1 to {channel_state.MAX_DEVICES}"
            )
        curve = os.environ.get("WDMOE_CURVE", "1")
        if curve not in ("0", "1"):
            raise InputError(f"WDMOE_CURVE is {curve!r}; allowed: 0 (off) or 1 (on)")
        keys_dir = Path(os.environ.get("WDMOE_KEYS_DIR", "/keys")) if curve == "1" else None
        return cls(
            devices=int(devices),
            keys_dir=keys_dir,
            state_dir=Path(os.environ.get("WDMOE_STATE_DIR", "/state")),
            profile=os.environ.get("WDMOE_PROFILE", "near-far"),
        )


def create_app(control: ControlPlane, registry: CollectorRegistry) -> FastAPI:
    """The application in front of a running control plane."""
    app = FastAPI(title="WDMoE orchestrator")
    # Switches take effect in the order of their arrival, though one may take longer to draw: who
    # gives up on a switch and restores what was before gets that.
    switching = asyncio.Lock()

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.exception_handler(StackError)
    async def fail(_: Request, error: StackError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503)

    @app.get("/healthz")
    def healthz() -> Orchestrator:
        faults = {f"device-{q}": fault for q, fault in control.links.faults().items()}
        status = "links not as in force" if faults else "ok"
        own = Build(**asdict(build.describe()))
        return Orchestrator(status=status, links=faults, build=own)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/status")
    def status() -> Status:
        return control.status()

    @app.get("/intervals")
    def intervals(since_s: float) -> list[Interval]:
        return [Interval(**applied._asdict()) for applied in control.intervals(since_s)]

    @app.get("/profile")
    def profile() -> ProfileText:
        profile = control.profile
        return ProfileText(name=profile.name, text=profile.text, traces=dict(profile.traces))

    @app.post("/profile")
    async def use_profile(http: Request) -> Status:
        request = await _body(http, ProfileRequest)
        async with switching:
            return await run_in_threadpool(_use, control, request)

    @app.post("/policy")
    async def use_policy(http: Request) -> Status:
        request = await _body(http, PolicyRequest)
        async with switching:
            return await run_in_threadpool(_use_policy, control, request)

    @app.post("/verification")
    async def verified(http: Request) -> Status:
        control.verified(await _body(http, Verification))
        return await run_in_threadpool(control.status)

    @app.post("/replay", status_code=204)
    async def replay(http: Request) -> None:
        control.replay.take(await _body(http, Progress, replay_progress.MAX_BYTES))

    return app


def _use(control: ControlPlane, request: ProfileRequest) -> Status:
    name = request.name
    profile = profiles.parse(request.text, name, f"{name}.yaml", request.traces)
    control.use(
        profile, first_interval=request.first_interval, allow_degraded=request.allow_degraded
    )
    return control.status()


def _use_policy(control: ControlPlane, request: PolicyRequest) -> Status:
    control.use_policy(request.name, request.params)
    return control.status()


async def _body(request: Request, kind: type[_Body], max_bytes: int = MAX_BODY_BYTES) -> _Body:
    """The body as `kind`; read no further than a body may be long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"body larger than the {max_bytes} bytes allowed")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InputError(f"POST {request.url.path}: {first_fault(error, 'body')}") from None
