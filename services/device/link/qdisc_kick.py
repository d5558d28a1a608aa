"""Makes a token bucket look at the packet at its head again.

The bucket sets its timer for that packet at the rate of that moment. A rate change leaves the timer
as it is (a link that comes out of an outage at 10 kbit/s stays silent for 1.2 s more), but queueing
another packet sets it again. This module queues one, which is empty and has no receiver:

    to 192.0.2.1 (TEST-NET-1) at 01:80:c2:00:00:01, which no bridge forwards; an ifb drops it, too
"""

import socket
import struct

from orchestrator.errors import StackError
from services.net.radio_interface import run

_NOBODY = "192.0.2.1"
_NOT_FORWARDED = "01:80:c2:00:00:01"
_IP_PKTINFO = 8  # Linux's; Python does not name it


class Waker:
    """The sender of that packet; it needs no capability beyond NET_ADMIN."""

    def __init__(self, radio: str) -> None:
        """Prepare the radio interface `radio`; network devices without ARP need nothing."""
        neighbour = (_NOBODY, "lladdr", _NOT_FORWARDED, "nud", "permanent")
        run("ip", "neigh", "replace", *neighbour, "dev", radio)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def wake(self, dev: str) -> None:
        """Queue one packet of 42 bytes on a network device; StackError if it takes none."""
        try:
            through = struct.pack("=I8x", socket.if_nametoindex(dev))
            route = [(socket.IPPROTO_IP, _IP_PKTINFO, through)]
            self._socket.sendmsg([b""], route, socket.MSG_DONTROUTE, (_NOBODY, 9))
        except OSError as error:
            raise StackError(f"{dev}: {error.strerror}") from None
