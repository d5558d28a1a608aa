"""Every metric of the testbed, by role; a process exports only the metrics of its own role.

Each role is a dataclass of metric objects; its factory registers them in the registry it is given.
An attribute has the metric's name without `wdmoe_` (and without `_info` for an Info). Devices
import this package, so it needs only prometheus-client and numpy.
"""

from orchestrator.metrics.bs import BsMetrics, bs_metrics
from orchestrator.metrics.device import DeviceMetrics, device_metrics
from orchestrator.metrics.orchestrator import OrchestratorMetrics, orchestrator_metrics

__all__ = [
    "BsMetrics",
    "DeviceMetrics",
    "OrchestratorMetrics",
    "bs_metrics",
    "device_metrics",
    "orchestrator_metrics",
]
