"""A document as one HTML file that opens from disk: styles, script and plots inside, nothing fetched."""

import base64
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
from markupsafe import Markup

from secateur.analysis.document import Document, Figure, Paragraph, Table
from secateur.analysis.formats import about, is_text, show
from secateur.analysis.plots.style import Plot
from secateur.analysis.texts import Texts

LONG = 44
"""Text cells longer than this may be broken into lines."""
LARGE = 1_500_000
"""An SVG above this size is shown as PNG, so that the page stays light."""


def to_html(document: Document, plots: dict[str, Plot], texts: Texts) -> str:
    """Render the page."""
    folder = resources.files("secateur.analysis") / "templates"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    for name, kind in (("paragraph", Paragraph), ("table", Table), ("figure", Figure)):
        environment.tests[name] = _is(kind)
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    return template.render(
        document=document,
        css=_raw(folder, "report.css"),
        script=_raw(folder, "report.js"),
        images={name: _data_uri(plot) for name, plot in plots.items()},
        grid=lambda table: _grid(table, texts),
        t=texts,
    )


def _is(kind: type) -> Any:
    return lambda value: isinstance(value, kind)


def _raw(folder: Traversable, name: str) -> Markup:
    return Markup((folder / name).read_text(encoding="utf-8"))  # noqa: S704  our own file


def _data_uri(plot: Plot) -> str:
    kind, data = ("svg+xml", plot.svg) if len(plot.svg) < LARGE else ("png", plot.png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _grid(table: Table, texts: Texts) -> dict[str, object]:
    """Head and cells of a table: label, unit and meaning; text, sort value and alignment."""
    names = [str(name) for name in table.frame.columns if name not in table.skip]
    head = [
        {"label": texts.get(f"columns.{name}", name), "meaning": texts.get(f"meanings.{name}", about(name)["meaning"]),
         "text": is_text(name)}
        for name in names
    ]  # fmt: skip
    rows = [
        {
            "mark": position in table.mark,
            "cells": [_cell(name, value) for name, value in zip(names, row, strict=True)],
        }
        for position, row in enumerate(table.frame[names].head(table.show).itertuples(index=False, name=None))
    ]
    return {"head": head, "rows": rows}


def _cell(name: str, value: object) -> dict[str, object]:
    text = show(name, value)
    key = "" if isinstance(value, str | tuple | list) or text == "–" else f"{value}"
    style = ("flush long" if len(text) > LONG else "flush") if is_text(name) else ""
    return {"text": text, "key": key, "style": style}
