"""A strict YAML loader: the core schema of YAML 1.2, without surprises.

PyYAML follows YAML 1.1, where `5e12` is a string, `1:30` is 90, `010` is 8 and `no` is false. Here
a number is a number. Repeated keys and tags are errors, and so are anchors and aliases, which can
expand a short file into a huge one.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from orchestrator.errors import InputError, one_line

MAX_BYTES = 64 * 1024


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags are not allowed", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                problem = (
                    f"the key {key.value!r} is given twice"
                    if isinstance(key, yaml.ScalarNode)
                    else "a key has to be a word"
                )
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = loader.construct_scalar(node)
    return int(text) if node.tag.endswith(":int") else float(text)


for _tag, _pattern, _first in (
    ("null", r"^(~|null|)$", "~n"),
    ("bool", r"^(true|false)$", "tf"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first, *([""] * (_tag == "null"))]
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def load(text: str, source: str) -> Any:
    """Parse one document; InputError names the source, the line and the fault."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise InputError(f"{source}: larger than the {MAX_BYTES} bytes allowed")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{source}: {line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise InputError(f"{source}: not YAML: {one_line(str(error))}") from None
    except RecursionError:
        raise InputError(f"{source}: not YAML that can be read: nested too deeply") from None
    except ValueError:
        raise InputError(f"{source}: a number of too many digits") from None
