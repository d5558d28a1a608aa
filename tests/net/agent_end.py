"""A device's link agent, run inside a network namespace (see test_agent.py).

Arguments: the orchestrator's address, and the base station's on the radio. Answers each line on
standard input with a JSON line: the link as the device's server and its health check see it.
"""

import json
import sys
from dataclasses import replace
from functools import partial

import zmq

from orchestrator.metrics import device_metrics
from services import settings
from services.device.link.agent import LinkAgent
from services.device.link.shaper import Shaper
from services.net.radio_interface import interface_towards


def main(orchestrator: str, base_station: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # the agent prints its errors
    conf = replace(settings.load(), curve=False, devices=1, orchestrator_host=orchestrator)
    shaper = Shaper(partial(interface_towards, base_station))
    agent = LinkAgent(conf, 0, shaper, device_metrics(), zmq.Context())
    agent.start()
    for _ in sys.stdin:
        seen = {"alive": agent.is_alive(), "fault": agent.fault(), "faults": agent.faults}
        print(json.dumps(seen), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
