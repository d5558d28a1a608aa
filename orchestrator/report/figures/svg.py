"""A figure as files, and inline in a page.

A page has many figures: ids are made unique, colours become variables of the page, and settings of
the whole document (its size, a style for every element) are removed.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from orchestrator.report.figures import style

PNG_DPI = 200

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_PAINTS = ("fill", "stroke")
_COLOUR = re.compile("#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def save(figure: Figure, path: Path) -> None:
    """Write PATH.png and PATH.svg on a white background."""
    with style.applied():
        FigureCanvasAgg(figure).print_figure(f"{path}.png", dpi=PNG_DPI, facecolor="white")
    path.with_name(f"{path.name}.svg").write_bytes(_render(figure, path.name, "white"))


def inline(figure: Figure, name: str, described_by: str) -> str:
    """Return the figure as an SVG element; `described_by` is the id of its finding."""
    root = ElementTree.fromstring(_render(figure, name, "none"))
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    _make_ids_unique(root, name)
    for element in root.iter():
        # Hatches have colours in attributes, where not all browsers resolve variables.
        attributes = element.attrib
        paints = [f"{name}: {attributes.pop(name)}" for name in _PAINTS if name in attributes]
        css = "; ".join([*filter(None, [element.get("style")]), *paints])
        if css:
            element.set("style", _COLOUR.sub(_variable, css))
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", described_by)
    ElementTree.register_namespace("", _SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _render(figure: Figure, name: str, ground: str) -> bytes:
    with style.applied(), mpl.rc_context({"svg.hashsalt": name}), BytesIO() as file:
        FigureCanvasSVG(figure).print_figure(
            file, format="svg", facecolor=ground, metadata={"Date": None}
        )
        return file.getvalue()


def _make_ids_unique(root: ElementTree.Element, name: str) -> None:
    """Prefix referenced ids with the name of the figure, and remove all others."""
    referred = set()
    for element in root.iter():
        if _HREF in element.attrib:
            target = element.attrib.pop(_HREF)
            if target.startswith("#"):
                referred.add(target[1:])
                target = f"#{name}-{target[1:]}"
            element.set("href", target)
        for attribute, value in element.attrib.items():
            referred.update(_REFERENCE.findall(value))
            element.set(attribute, _REFERENCE.sub(rf"url(#{name}-\1)", value))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in referred:
            element.set("id", f"{name}-{identity}")


def _variable(colour: re.Match[str]) -> str:
    return f"var({style.VARIABLES[colour[0]]})" if colour[0] in style.VARIABLES else colour[0]
