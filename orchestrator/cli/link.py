"""`wdmoe link verify`: measure each link and compare it with the channel requested."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.contracts.http import Link, Status
from orchestrator.contracts.verification import Loss, Verification
from orchestrator.errors import InputError, StackError
from orchestrator.host.progress_display import progress_display
from orchestrator.verify.measure import STEPS, verify_links

app = typer.Typer(no_args_is_help=True, help="Radio links.")


@app.callback()
def _group() -> None:
    """Keep `verify` a command of its group, although it is the only one."""


@app.command()
def verify(
    device: Annotated[
        int | None, typer.Option(min=0, metavar="Q", help="Only this device's link.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Probe each link both ways, shaped and then unshaped; compare with the requested channel.

    The second half runs with shaping off: do not run it during a replay. Afterwards, also when
    interrupted, the previous profile and policy are restored.
    """
    with common.client() as client:
        status = client.status()
        chosen = _chosen(status, device)
        with progress_display() as progress:
            task = progress.add_task("probing", total=STEPS * len(chosen))
            found = verify_links(client, status, chosen, lambda: progress.advance(task))
        client.verified(found)
    if as_json:
        series = [
            {**item.model_dump(), "error": item.error, "error_as_is": item.error_as_is}
            for item in found.series
        ]
        common.print_json({**found.model_dump(), "series": series})
    else:
        _print(found)


def _chosen(status: Status, device: int | None) -> list[Link]:
    """Return the links to verify: all in reach, or one device's."""
    links = status.links
    if device is not None and device >= len(links):
        raise InputError(f"--device is {device}; allowed: 0 to {len(links) - 1}")
    chosen = [link for link in links if device in (None, link.device) and link.reachable]
    if not chosen:
        raise InputError(f"profile {status.profile!r} has no such device in reach")
    silent = [f"device-{link.device}" for link in chosen if link.backend is None]
    if silent:
        raise StackError(f"{', '.join(silent)} did not report a shaped link yet")
    return chosen


def _print(found: Verification) -> None:
    typer.echo(
        f"profile {found.profile}, backend {', '.join(found.backends)}; times in ms; "
        "error = (median - cost - expected) / expected, where cost is the smallest size's "
        "unshaped time, and the extra time of a larger size on loopback; "
        "as is: cost included"
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
        f"requested {loss.asked:.3%}"
    )
