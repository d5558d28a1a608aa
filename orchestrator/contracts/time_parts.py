"""The parts of a request's time at the base station: metrics, records, tables and figures derive
their lists from these. Without pydantic, which device images lack.
"""

# They sum to the end-to-end time. Per layer, a device's parts are those of the device that answered
# last.
PARTS = (
    "queue_s",
    "downlink_s",
    "compute_s",
    "uplink_s",
    "wait_s",
    "gate_s",
    "selection_s",
    "combine_s",
    "trunk_s",
    "overhead_s",
)

# Those of links and devices; the others are the base station's.
DEVICE_PARTS = ("downlink_s", "wait_s", "compute_s", "uplink_s")
