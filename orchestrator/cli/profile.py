"""`wdmoe profile`: the scenarios there are, what they amount to, and which is in force."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import profiles
from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.profiles import Profile
from orchestrator.state import DeviceState

Reference = Annotated[
    str, typer.Argument(metavar="NAME", help="A bundled profile, or the path of a file.")
]

app = typer.Typer(no_args_is_help=True, help="Channel profiles.")


@app.command("list")
def list_profiles(as_json: Json = False) -> None:
    """The bundled profiles; rates are those without fading, from the slowest to the fastest."""
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
def show(name: Reference, as_json: Json = False) -> None:
    """What a profile gives each device: without fading (mean), and drawn for the first interval."""
    profile = profiles.find(name)
    spec = profile.spec
    pairs = list(zip(profile.devices(None), profile.devices(0), strict=True))
    if as_json:
        devices = [
            {
                "device": number,
                "distance_m": spec.devices[number].distance_m,
                **asdict(drawn),
                "mean_down_bps": mean.down.rate_bps,
                "mean_up_bps": mean.up.rate_bps,
            }
            for number, (mean, drawn) in enumerate(pairs)
        ]
        common.print_json({**_summary(profile), "seed": spec.seed, "devices": devices})
        return
    typer.echo(f"{profile.name}: {spec.description}")
    typer.echo(
        f"fading {_fading(profile)}, seed {spec.seed}; {spec.carrier_ghz:g} GHz, "
        f"{common.quantity(spec.bandwidth_hz, 'Hz')} shared by {len(pairs)}, "
        f"noise {spec.noise_dbm_per_hz:g} dBm/Hz, power {spec.bs_power_w:g} W down "
        f"and {spec.device_power_w:g} W up"
    )
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
                common.quantity(spec.devices[number].distance_m, "m"),
                common.quantity(drawn.flops, "FLOP/s"),
                common.rate(mean.down.rate_bps),
                common.link(asdict(drawn.down)),
                common.rate(mean.up.rate_bps),
                common.link(asdict(drawn.up)),
            ]
            for number, (mean, drawn) in enumerate(pairs)
        ],
    )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A profile file.")],
    as_json: Json = False,
) -> None:
    """Check a profile file; the first thing wrong with it is the error."""
    profile = profiles.load(file)
    if as_json:
        common.print_json({**_summary(profile), "needs_netem": profile.needs_netem})
        return
    needs = ", needs netem" if profile.needs_netem else ""
    typer.echo(f"{file}: ok, {len(profile.spec.devices)} devices{needs}")


@app.command()
def use(
    name: Reference,
    allow_degraded: Annotated[
        bool,
        typer.Option(
            "--allow-degraded",
            help="On kernels without netem, apply the rates and leave out delay, jitter and loss.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a profile into force, and print what each link is asked to be from now on."""
    profile = profiles.find(name)
    status = common.ask_orchestrator(
        "/profile",
        {"name": profile.name, "text": profile.text, "allow_degraded": allow_degraded},
    )
    if as_json:
        common.print_json(status)
        return
    typer.echo(f"in force: {status['profile']}, seed {status['seed']}, epoch {status['epoch']}")
    common.print_table(
        ["Device", ">Speed", "Down", "Up"],
        [
            [
                _label(item["device"], item["reachable"]),
                common.quantity(item["flops"], "FLOP/s"),
                common.link(item["down"]),
                common.link(item["up"]),
            ]
            for item in status["links"]
        ],
    )


def _summary(profile: Profile) -> dict[str, Any]:
    devices = profile.devices(None)
    return {
        "name": profile.name,
        "description": profile.spec.description,
        "sha256": profile.sha256,
        "devices": len(devices),
        "fading": _fading(profile),
        "down_bps": _rates(devices, "down"),
        "up_bps": _rates(devices, "up"),
    }


def _rates(devices: tuple[DeviceState, ...], name: str) -> list[float]:
    """The slowest and the fastest; empty if no link is shaped."""
    rates = [getattr(device, name).rate_bps for device in devices if device.reachable]
    shaped = [rate for rate in rates if rate is not None]
    return [min(shaped), max(shaped)] if shaped else []


def _range(rates: list[float]) -> str:
    if not rates:
        return "not shaped"
    slowest, fastest = map(common.rate, rates)
    return slowest if slowest == fastest else f"{slowest} to {fastest}"


def _fading(profile: Profile) -> str:
    fading = profile.spec.fading
    if fading.kind == "none":
        return "none"
    if fading.coherence_s is None:
        return "rayleigh, one draw"
    return f"rayleigh, every {1e3 * fading.coherence_s:g} ms"


def _label(number: int, reachable: bool) -> str:
    return f"device-{number}" + ("" if reachable else " (out of reach)")
