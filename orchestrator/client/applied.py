"""Wait until devices have applied a switch, so that no request meets a half-applied channel."""

from __future__ import annotations

import time
from collections.abc import Collection

from orchestrator.client.client import Client
from orchestrator.contracts.http import Link, Status
from orchestrator.errors import StackError

APPLIED_WITHIN_S = 30.0
# Devices report once a second; one that is silent for longer is gone.
SILENT_S = 3.0
# Polling interval; eight devices need about 10 ms to apply a switch and report it.
LOOK_EVERY_S = 0.01


def wait_applied(client: Client, channel: Status, devices: Collection[int] | None = None) -> None:
    """Wait until devices report that they applied `channel`, or a later state.

    Args:
        devices: numbers; None: all that still report.

    Raises:
        StackError: a device did not within APPLIED_WITHIN_S; with its link's error if any.
    """
    time.sleep(max(0.0, channel.apply_at_s - time.time()))
    deadline = time.monotonic() + APPLIED_WITHIN_S
    while True:
        time.sleep(LOOK_EVERY_S)
        late = [
            link
            for link in client.status().links
            if (_reports(link) if devices is None else link.device in devices)
            and not _has_applied(link, channel.epoch)
        ]
        if not late:
            return
        if time.monotonic() > deadline:
            error = f": {late[0].error}" if late[0].error else ""
            raise StackError(
                f"device-{late[0].device} did not apply {channel.profile} within "
                f"{APPLIED_WITHIN_S:.0f} s{error}"
            )


def _reports(link: Link) -> bool:
    return link.reported_age_s is not None and link.reported_age_s < SILENT_S


def _has_applied(link: Link, epoch: int) -> bool:
    return link.error is None and link.applied_epoch is not None and link.applied_epoch >= epoch
