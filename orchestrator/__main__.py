"""Run the orchestrator: `python -m orchestrator`."""

from __future__ import annotations

import sys

import uvicorn
from prometheus_client import REGISTRY

from orchestrator.control.http import HTTP_PORT, Settings, create_app
from orchestrator.control.in_force import InForceStore
from orchestrator.control.plane import ControlPlane
from orchestrator.errors import InputError, StackError
from orchestrator.metrics import orchestrator_metrics
from orchestrator.process.threads import end_process_with_any_thread
from orchestrator.radio import profiles


def main() -> int:
    """Serve until a signal stops the process; return the exit code."""
    end_process_with_any_thread("orchestrator")
    try:
        settings = Settings.from_environment()
        control = ControlPlane(
            profiles.find(settings.profile),
            devices=settings.devices,
            metrics=orchestrator_metrics(),
            keys_dir=settings.keys_dir,
            store=InForceStore(settings.state_dir, settings.profile),
        )
        with control:
            app = create_app(control, REGISTRY)
            uvicorn.run(app, host="0.0.0.0", port=HTTP_PORT, log_level="warning")
    except InputError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 2
    except StackError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
