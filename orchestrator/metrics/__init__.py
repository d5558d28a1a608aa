"""Every metric of the testbed, by name; a process exports those of its own role only.

Each role is a dataclass of metric objects that its factory registers in the registry it is given.
An attribute is called as the metric is, without `wdmoe_` (and, of an Info, without `_info`). Only
prometheus-client and numpy: devices import it.
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
