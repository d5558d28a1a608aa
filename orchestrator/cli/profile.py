"""`wdmoe profile`: list, show, check and import channel profiles; put one into force."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.contracts.channel_state import DeviceState
from orchestrator.contracts.http import Direction
from orchestrator.errors import InputError
from orchestrator.extras import mahimahi
from orchestrator.files.text_file import user_path
from orchestrator.radio import link_trace, profiles
from orchestrator.radio.profile_schema import Device
from orchestrator.radio.profiles import Profile

Reference = Annotated[
    str, typer.Argument(metavar="NAME", help="A bundled profile, or the path of a file.")
]

app = typer.Typer(no_args_is_help=True, help="Channel profiles.")


@app.command("list")
def list_profiles(as_json: Json = False) -> None:
    """List the bundled profiles; rates are without fading, from the slowest to the fastest."""
    rows = [_summary(profile) for profile in profiles.bundled()]
    if as_json:
        common.print_json(rows)
        return
    common.print_table(
        ["Profile", "Description", ">Devices", "Fading", "Down", "Up"],
        [
            [
                row["name"],
                row["description"],
                str(row["devices"]),
                row["fading"],
                _range(row["down_bps"]),
                _range(row["up_bps"]),
            ]
            for row in rows
        ],
    )


@app.command()
def show(
    name: Reference,
    plot: Annotated[
        bool,
        typer.Option("--plot", help="Draw the rates into NAME-rates.png in the current folder."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show each device's channel: without fading (mean), and drawn for the first interval."""
    profile = profiles.find(name)
    common.warn(profile.warnings)
    picture = _plot(profile) if plot else None
    spec = profile.spec
    pairs = list(zip(profile.devices(None), profile.devices(0), strict=True))
    if as_json:
        devices = [
            {
                "device": number,
                "distance_m": spec.devices[number].distance_m,
                "trace": spec.devices[number].trace,
                "shadowing_db": profile.shadowing_db(number),
                **asdict(drawn),
                "mean_down_bps": mean.down.rate_bps,
                "mean_up_bps": mean.up.rate_bps,
            }
            for number, (mean, drawn) in enumerate(pairs)
        ]
        common.print_json(
            {
                **_summary(profile),
                "seed": spec.seed,
                "correlation": profile.correlation,
                "outage_bps": spec.outage_bps,
                "devices": devices,
                "plot": picture and str(picture),
            }
        )
        return
    typer.echo(f"{profile.name}: {spec.description}")
    typer.echo(
        f"fading {_fading(profile)}{_correlation(profile)}, seed {spec.seed}; "
        f"{spec.carrier_ghz:g} GHz, {common.quantity(spec.bandwidth_hz, 'Hz')} shared by "
        f"{len(pairs)}, noise {spec.noise_dbm_per_hz:g} dBm/Hz, power {spec.bs_power_w:g} W down "
        f"and {spec.device_power_w:g} W up"
    )
    if spec.shadowing_db:
        typer.echo(f"shadowing with a deviation of {spec.shadowing_db:g} dB, one draw a device")
    if spec.outage_bps is not None:
        typer.echo(f"outage below {common.rate(spec.outage_bps)} in either direction")
    if spec.emulate:
        typer.echo(
            f"emulates hidden size {spec.emulate.hidden_size}, intermediate size "
            f"{spec.emulate.intermediate_size}, {spec.emulate.bits_per_element} bits an element"
        )
    common.print_table(
        ["Device", ">Distance", ">Speed", ">Mean down", "Drawn down", ">Mean up", "Drawn up"],
        [
            [
                _label(number, drawn.reachable),
                _place(spec.devices[number]),
                common.quantity(drawn.flops, "FLOP/s"),
                common.rate(mean.down.rate_bps),
                common.link(Direction(**asdict(drawn.down))),
                common.rate(mean.up.rate_bps),
                common.link(Direction(**asdict(drawn.up))),
            ]
            for number, (mean, drawn) in enumerate(pairs)
        ],
    )
    if picture:
        typer.echo(f"Rates drawn into {picture}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(parser=user_path, metavar="FILE", help="A profile file.")],
    as_json: Json = False,
) -> None:
    """Check a profile file; the error names the first fault."""
    profile = profiles.load(file)
    common.warn(profile.warnings)
    if as_json:
        common.print_json({**_summary(profile), "needs_netem": profile.needs_netem})
        return
    recorded = f", {len(profile.traces)} traces" if profile.traces else ""
    needs = ", needs netem" if profile.needs_netem else ""
    typer.echo(f"{file}: ok, {len(profile.spec.devices)} devices{recorded}{needs}")


@app.command()
def use(
    name: Reference,
    allow_degraded: common.AllowDegraded = False,
    as_json: Json = False,
) -> None:
    """Put a profile into force, and print the state requested of each link from now on."""
    profile = profiles.find(name)
    common.warn(profile.warnings)
    with common.client() as client:
        status = client.use_profile(profile, allow_degraded=allow_degraded)
    if as_json:
        common.print_json(status.model_dump())
        return
    typer.echo(f"in force: {status.profile}, seed {status.seed}, epoch {status.epoch}")
    common.print_table(
        ["Device", ">Speed", "Down", "Up"],
        [
            [
                _label(link.device, link.reachable),
                common.quantity(link.flops, "FLOP/s"),
                common.link(link.down),
                common.link(link.up),
            ]
            for link in status.links
        ],
    )


@app.command("import-mahimahi")
def import_mahimahi(
    down: Annotated[
        Path,
        typer.Argument(parser=user_path, metavar="DOWN", help="The downlink's packet times."),
    ],
    up: Annotated[
        Path, typer.Argument(parser=user_path, metavar="UP", help="The uplink's packet times.")
    ],
    out: Annotated[
        Path, typer.Option(parser=user_path, metavar="FILE", help="The trace to write.")
    ],
    step_s: Annotated[
        float, typer.Option(metavar="S", help="Time between two lines, in whole milliseconds.")
    ] = 0.1,
    as_json: Json = False,
) -> None:
    """Convert two packet-delivery files of the Mahimahi emulator to a trace for profiles."""
    step_ms = round(1000 * step_s) if 0.001 <= step_s <= 3600 else 0
    if not step_ms or not math.isclose(step_ms, 1000 * step_s):
        raise InputError(
            f"--step-s is {step_s:g}; allowed: whole milliseconds in seconds, from 0.001 to 3600"
        )
    text, warnings = mahimahi.convert(down, up, step_ms)
    trace = link_trace.parse(text, str(out))
    out.write_text(text)
    common.warn(warnings)
    length_s = trace.length_ns * 1e-9
    down_bps = trace.down.mean_bps(0, trace.length_ns)
    up_bps = trace.up.mean_bps(0, trace.length_ns)
    if as_json:
        common.print_json(
            {
                "trace": str(out),
                "length_s": length_s,
                "mean_down_bps": down_bps,
                "mean_up_bps": up_bps,
                "warnings": warnings,
            }
        )
        return
    typer.echo(
        f"{out}: {length_s:g} s, on average {common.rate(down_bps)} down and "
        f"{common.rate(up_bps)} up"
    )


def _plot(profile: Profile) -> Path:
    from orchestrator.radio import plot  # matplotlib takes half a second to load

    path = Path(f"{profile.name}-rates.png")
    plot.draw(profile, path)
    return path


def _summary(profile: Profile) -> dict[str, Any]:
    devices = profile.devices(None)
    return {
        "name": profile.name,
        "description": profile.spec.description,
        "sha256": profile.sha256,
        "devices": len(devices),
        "fading": _fading(profile),
        "interval_s": profile.interval_s,
        "traces": list(profile.traces),
        "warnings": profile.warnings,
        "down_bps": _rates(devices, "down"),
        "up_bps": _rates(devices, "up"),
    }


def _rates(devices: tuple[DeviceState, ...], name: str) -> list[float]:
    """Return the slowest and the fastest rate; empty if no link is shaped."""
    rates = [getattr(device, name).rate_bps for device in devices if device.reachable]
    shaped = [rate for rate in rates if rate is not None]
    return [min(shaped), max(shaped)] if shaped else []


def _range(rates: list[float]) -> str:
    if not rates:
        return "not shaped"
    slowest, fastest = map(common.rate, rates)
    return slowest if slowest == fastest else f"{slowest} to {fastest}"


def _fading(profile: Profile) -> str:
    """Describe how the channel varies: kind, speed, interval."""
    fading = profile.spec.fading
    parts: list[str] = []
    if fading.kind == "rayleigh":
        parts.append("rayleigh")
    if fading.speed_m_per_s is not None:
        parts.append(f"{fading.speed_m_per_s:g} m/s")
    if profile.traces:
        parts.append("recorded")
    if profile.interval_s is not None:
        parts.append(f"every {1e3 * profile.interval_s:g} ms")
    elif parts:
        parts.append("one draw")
    return ", ".join(parts) or "none"


def _correlation(profile: Profile) -> str:
    moving = profile.spec.fading.speed_m_per_s is not None
    return f" (ρ {profile.correlation:.2f})" if moving else ""


def _place(device: Device) -> str:
    """Return the source of a device's rates: its trace or its distance."""
    return device.trace or common.quantity(device.distance_m, "m")


def _label(number: int, reachable: bool) -> str:
    return f"device-{number}" + ("" if reachable else " (out of reach)")
