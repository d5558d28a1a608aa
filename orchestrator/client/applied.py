"""Wait until a switch is in force on the devices, so that nothing meets a half-applied channel."""

from __future__ import annotations

import time
from collections.abc import Collection

from orchestrator.client.client import Client
from orchestrator.errors import StackError
from orchestrator.results.schema import Channel, Link

APPLIED_WITHIN_S = 30.0
# Devices report once a second; one that is silent for longer is not there.
SILENT_S = 3.0
# Between two looks; eight devices need about 10 ms to apply a switch and report it.
LOOK_EVERY_S = 0.01


def wait_applied(client: Client, channel: Channel, devices: Collection[int] | None = None) -> None:
    """Wait until devices report that they applied `channel`, or what came after it.

    Args:
        devices: numbers; None: all whose reports still come.

    Raises:
        StackError: one did not within APPLIED_WITHIN_S, with its link's error if it has one.
    """
    time.sleep(max(0.0, channel.apply_at_s - time.time()))
    deadline = time.monotonic() + APPLIED_WITHIN_S
    while True:
        time.sleep(LOOK_EVERY_S)
        late = [
            link
            for link in client.channel().links
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
