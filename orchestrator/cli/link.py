"""`wdmoe link verify`: what each link does against what was asked of it, on the real radio."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.client.client import Client
from orchestrator.contracts.verification import Loss, Verification
from orchestrator.errors import InputError, StackError
from orchestrator.host.progress_display import progress_display
from orchestrator.verify.measure import STEPS, verify_links

app = typer.Typer(no_args_is_help=True, help="Radio links.")


@app.callback()
def _group() -> None:
    """Keep `verify` a command of its group, the only one though it is."""


@app.command()
def verify(
    device: Annotated[
        int | None, typer.Option(min=0, metavar="Q", help="Only this device's link.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Probe each link both ways, shaped as it is and then not shaped; compare with what was asked.

    The links are out of shape for the second half: not to be run beside a replay. Afterwards the
    stack has the profile and policy that it had before, also when interrupted.
    """
    status = common.ask_orchestrator("/status")
    links = status["links"]
    if device is not None and device >= len(links):
        raise InputError(f"--device is {device}; allowed: 0 to {len(links) - 1}")
    chosen = [link for link in links if device in (None, link["device"]) and link["reachable"]]
    if not chosen:
        raise InputError(f"profile {status['profile']!r} has no such device in reach")
    silent = [f"device-{link['device']}" for link in chosen if link["backend"] is None]
    if silent:
        raise StackError(f"{', '.join(silent)} did not report a shaped link yet")
    with (
        closing(Client(common.bs_url(), common.orchestrator_url())) as client,
        progress_display() as progress,
    ):
        task = progress.add_task("probing", total=STEPS * len(chosen))
        found = verify_links(client, status, chosen, lambda: progress.advance(task))
    common.ask_orchestrator("/verification", found.model_dump())
    if as_json:
        series = [
            {**item.model_dump(), "error": item.error, "error_as_is": item.error_as_is}
            for item in found.series
        ]
        common.print_json({**found.model_dump(), "series": series})
    else:
        _print(found)


def _print(found: Verification) -> None:
    typer.echo(
        f"profile {found.profile}, backend {', '.join(found.backends)}; times in ms; "
        "error = (median - cost - expected) / expected, where cost is the smallest size unshaped, "
        "and what a larger one takes more on loopback; "
        "as is: cost and all"
    )
    heads = [
        "Device",
        "",
        ">Size",
        ">n",
        ">Expected",
        ">Median",
        ">p10 – p90",
        ">Unshaped",
        ">Error",
    ]
    common.print_table(
        [*heads, ">As is", ">Measured rate"],
        [
            [
                f"device-{item.device}",
                item.direction,
                f"{item.size_bytes >> 10} KiB",
                str(item.n),
                f"{1e3 * item.expected_s:.2f}",
                f"{1e3 * item.measured_s:.2f}",
                f"{1e3 * item.p10_s:.2f} – {1e3 * item.p90_s:.2f}",
                f"{1e3 * item.unshaped_s:.2f}",
                _percent(item.error),
                _percent(item.error_as_is),
                common.quantity(item.rate_bps, "bit/s"),
            ]
            for item in found.series
        ],
    )
    for loss in found.losses:
        typer.echo(_loss_line(loss))


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:+.1%}"


def _loss_line(loss: Loss) -> str:
    total = loss.packets + loss.lost
    seen = f"{loss.lost / total:.3%}" if total else "none"
    return (
        f"device-{loss.device} {loss.direction}: {loss.lost} of {total} packets lost, {seen}; "
        f"asked {loss.asked:.3%}"
    )
