"""The table of all settings.

`python -m orchestrator.process.settings_table > docs/settings.md` writes the page that shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Reader: TypeAlias = Literal[
    "compose", "base station", "device", "orchestrator", "command line", "tests"
]

_INTRODUCTION = """\
# Settings

A variable in the environment, or in a file `.env` beside `docker-compose.yml`, holds for compose
and for every command. The environment takes precedence. An empty variable counts as absent, and
hides the one in `.env`. Tests read theirs from the environment only.

Settings of containers, images and published ports take effect at the next `wdmoe up`. The program
`python -m orchestrator.process.settings_table` prints this page.

"""
_INTERNAL = """
## Set by the stack

`wdmoe up` or `docker-compose.yml` sets the variables below, except `WDMOE_STATE_DIR`, which keeps
its default. A value in the environment or in `.env` has no effect on `wdmoe up`.

"""


@dataclass(frozen=True)
class Setting:
    """One variable: a row of the table.

    `default` is the literal value, empty if there is none; `allowed` and `what` are Markdown.
    `where` lists who reads the variable. `internal`: set by the stack, not by the user.
    """

    name: str
    default: str
    allowed: str
    what: str
    where: tuple[Reader, ...]
    internal: bool = False


SETTINGS = (
    Setting(
        name="WDMOE_MODEL",
        default="models/bundled",
        allowed="a folder of a [supported checkpoint](checkpoints.md)",
        what="Model to serve. A relative path starts at the working directory, in `.env` at the "
        "checkout; `~` is the home folder.",
        where=("compose", "command line", "tests"),
    ),
    Setting(
        name="WDMOE_MODEL_NAME",
        default="",
        allowed="a name",
        what="Name under which the model is served. Default: the name of its folder.",
        where=("compose", "base station", "command line"),
    ),
    Setting(
        name="WDMOE_COMPUTE_DTYPE",
        default="fp32",
        allowed="`fp32`, `fp16`, `bf16`",
        what="Type in which weights are held and computed.",
        where=("compose", "base station", "device"),
    ),
    Setting(
        name="WDMOE_WIRE_DTYPE",
        default="fp16",
        allowed="`fp32`, `fp16`, `bf16`, `int8`",
        what="Type of embeddings on the radio; `int8` in blocks of 64.",
        where=("compose", "base station"),
    ),
    Setting(
        name="WDMOE_TORCH_DEVICE",
        default="cpu",
        allowed="`cpu`, `cuda`, `cuda:N`",
        what="Where weights are held and computed. `docker-compose.gpu.yml` sets `cuda`: "
        "[GPUs](checkpoints.md#gpus).",
        where=("compose", "base station", "device"),
    ),
    Setting(
        name="WDMOE_DEVICE_TIMEOUT_S",
        default="3",
        allowed="seconds above 0 and below 3600",
        what="Time-out after which a device is given up, beyond "
        "[the time that it needs](measurement.md#when-a-device-fails).",
        where=("compose", "base station"),
    ),
    Setting(
        name="WDMOE_KV_MIB",
        default="0",
        allowed="0 to 16777216 MiB",
        what="Memory for keys and values on the base station; 0: "
        "[a quarter of what is free](measurement.md#several-requests-at-a-time).",
        where=("compose", "base station"),
    ),
    Setting(
        name="WDMOE_PROFILE",
        default="near-far",
        allowed="a bundled profile of 8 devices (`wdmoe profile list`)",
        what="Profile with which the orchestrator begins. After a restart, only "
        "[a changed value](radio.md) replaces the profile that was in force.",
        where=("compose", "orchestrator"),
    ),
    Setting(
        name="WDMOE_CURVE",
        default="1",
        allowed="`1`, `0`",
        what="`0`: [neither authentication nor encryption](security.md) on radio and control "
        "sockets.",
        where=("compose", "base station", "device", "orchestrator"),
    ),
    Setting(
        name="WDMOE_CORS_ORIGINS",
        default="",
        allowed="`*`, or origins such as `http://HOST:PORT`, separated by commas",
        what="Web origins whose pages may read the base station's answers; by default none.",
        where=("compose", "base station"),
    ),
    Setting(
        name="OTEL_EXPORTER_OTLP_ENDPOINT",
        default="",
        allowed="`http://HOST:PORT`, `https://HOST:PORT`",
        what="Collector to which the base station exports [traces](tracing.md#opentelemetry); by "
        "default none.",
        where=("compose", "base station"),
    ),
    Setting(
        name="WDMOE_BS_PORT",
        default="8000",
        allowed="1 to 65535",
        what="Port on 127.0.0.1 at which the base station's API is published.",
        where=("compose", "command line"),
    ),
    Setting(
        name="WDMOE_ORCHESTRATOR_PORT",
        default="8080",
        allowed="1 to 65535",
        what="Port on 127.0.0.1 at which the orchestrator's API is published.",
        where=("compose", "command line"),
    ),
    Setting(
        name="WDMOE_PROMETHEUS_PORT",
        default="9090",
        allowed="1 to 65535",
        what="Port on 127.0.0.1 at which Prometheus is published.",
        where=("compose",),
    ),
    Setting(
        name="WDMOE_GRAFANA_PORT",
        default="3000",
        allowed="1 to 65535",
        what="Port on 127.0.0.1 at which Grafana is published.",
        where=("compose",),
    ),
    Setting(
        name="WDMOE_BS_URL",
        default="",
        allowed="`http://HOST:PORT`",
        what="Base station that commands contact. Default: 127.0.0.1 at `WDMOE_BS_PORT`.",
        where=("command line",),
    ),
    Setting(
        name="WDMOE_ORCHESTRATOR_URL",
        default="",
        allowed="`http://HOST:PORT`",
        what="Orchestrator that commands contact. Default: 127.0.0.1 at `WDMOE_ORCHESTRATOR_PORT`.",
        where=("command line",),
    ),
    Setting(
        name="WDMOE_PROFILES_DIR",
        default="",
        allowed="a folder",
        what="Folder in which commands look up [profiles](profiles.md) by name. Default: "
        "`netem_profiles` of the checkout.",
        where=("command line",),
    ),
    Setting(
        name="WDMOE_PROMPTS_DIR",
        default="",
        allowed="a folder",
        what="Folder in which commands look up [prompt sets](prompts.md) by name. Default: "
        "`prompts` of the checkout.",
        where=("command line",),
    ),
    Setting(
        name="COMPOSE_PROJECT_NAME",
        default="wdmoe",
        allowed="a name of a compose project",
        what="Name of the stack. Two checkouts on one host need two names, and different ports.",
        where=("compose",),
    ),
    Setting(
        name="COMPOSE_FILE",
        default="docker-compose.yml",
        allowed="files, separated by colons",
        what="`docker-compose.yml:docker-compose.gpu.yml` runs the stack on "
        "[GPUs](checkpoints.md#gpus).",
        where=("compose",),
    ),
    Setting(
        name="WDMOE_HEALTH_INTERVAL",
        default="30s",
        allowed="a duration of compose, such as `10m`",
        what="Time between two health checks of a container.",
        where=("compose",),
    ),
    Setting(
        name="BASE_IMAGE",
        default="python:3.11-slim-bookworm",
        allowed="an image of Debian with Python 3.11 or newer in `/usr/local/bin`",
        what="Image on which the stack's own images are built. `setup.sh` writes it to `.env` "
        "where no image registry answers.",
        where=("compose",),
    ),
    Setting(
        name="TORCH_INDEX_URL",
        default="",
        allowed="a URL",
        what="Package index used beside pip's own when the images are built, for instance one "
        "with CPU builds of torch.",
        where=("compose",),
    ),
    Setting(
        name="WDMOE_PROMETHEUS_IMAGE",
        default="prom/prometheus:v2.55.1",
        allowed="an image",
        what="Image of Prometheus. `setup.sh` writes it to `.env` where no image registry answers.",
        where=("compose",),
    ),
    Setting(
        name="WDMOE_GRAFANA_IMAGE",
        default="grafana/grafana:11.6.0",
        allowed="an image",
        what="Image of Grafana.",
        where=("compose",),
    ),
    Setting(
        name="WDMOE_NETEM_TIMEOUT_S",
        default="3600",
        allowed="seconds",
        what="Time after which `tests/netem_kernel/run` stops the kernel that it has booted.",
        where=("tests",),
    ),
    Setting(
        name="WDMOE_MODEL_MOUNT",
        default="",
        allowed="a folder",
        what="Folder of the host that is mounted at `/model`. `wdmoe up` sets it from "
        "`WDMOE_MODEL`.",
        where=("compose",),
        internal=True,
    ),
    Setting(
        name="WDMOE_MODEL_SUBFOLDER",
        default="",
        allowed="empty, or a path that begins with `/`",
        what="Place of the model in the mounted folder. `wdmoe up` sets it from `WDMOE_MODEL`.",
        where=("compose",),
        internal=True,
    ),
    Setting(
        name="WDMOE_MODEL_DIR",
        default="models/bundled",
        allowed="a folder",
        what="Folder of the model. In a container `/model`, followed by `WDMOE_MODEL_SUBFOLDER`.",
        where=("base station", "device"),
        internal=True,
    ),
    Setting(
        name="WDMOE_DEVICES",
        default="8",
        allowed="1 to 1024",
        what="Number of devices; each holds one expert.",
        where=("base station", "device", "orchestrator", "command line"),
        internal=True,
    ),
    Setting(
        name="WDMOE_DEVICE",
        default="",
        allowed="0 to `WDMOE_DEVICES` − 1",
        what="Index of a device, and of its expert in every layer. Required.",
        where=("device",),
        internal=True,
    ),
    Setting(
        name="WDMOE_KEYS_DIR",
        default="/keys",
        allowed="a folder",
        what="Folder of the CURVE keys.",
        where=("base station", "device", "orchestrator"),
        internal=True,
    ),
    Setting(
        name="WDMOE_STATE_DIR",
        default="/state",
        allowed="a folder that exists",
        what="Folder in which the orchestrator stores the state in force.",
        where=("orchestrator",),
        internal=True,
    ),
    Setting(
        name="WDMOE_ORCHESTRATOR_HOST",
        default="orchestrator",
        allowed="a host name or an address",
        what="Orchestrator on the control network.",
        where=("base station", "device"),
        internal=True,
    ),
    Setting(
        name="WDMOE_BS_RADIO_HOST",
        default="bs-radio",
        allowed="a host name or an address",
        what="Base station on the radio network.",
        where=("base station", "device"),
        internal=True,
    ),
)


def markdown_table(settings: Iterable[Setting]) -> str:
    """Return a Markdown table with one row per setting."""
    lines = ["| setting | default | allowed | meaning | read by |", "|---|---|---|---|---|"]
    for setting in settings:
        default = f"`{setting.default}`" if setting.default else "–"
        where = ", ".join(setting.where)
        lines.append(
            f"| `{setting.name}` | {default} | {setting.allowed} | {setting.what} | {where} |"
        )
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the whole page as Markdown."""
    external = markdown_table(setting for setting in SETTINGS if not setting.internal)
    internal = markdown_table(setting for setting in SETTINGS if setting.internal)
    return _INTRODUCTION + external + _INTERNAL + internal


if __name__ == "__main__":
    print(page(), end="")
