"""What all plots share: palette, markers, fonts, saving."""

import io
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from secateur.analysis.texts import Texts

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D31")
"""Okabe and Ito's colours for all kinds of colour vision, the darker ones first."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
CJK = re.compile(
    r"noto sans (mono )?cjk|noto sans sc|noto serif cjk|source han|wenquanyi|wqy|pingfang|hiragino sans gb|heiti|"
    r"songti|stheiti|simhei|simsun|microsoft yahei|droid sans fallback|arial unicode|sarasa|lxgw",
    re.IGNORECASE,
)
FILES = re.compile(
    r"cjk|notosanssc|wqy|pingfang|simhei|simsun|msyh|fallback|sourcehan|sarasa|lxgw|heiti|songti", re.I
)
DPI = 110
CROWD = 3000
"""Above this many points a scatter is drawn as pixels inside the SVG."""

SETTINGS: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.labelsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666666", "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "xtick.color": "#333333", "ytick.color": "#333333", "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.frameon": False, "figure.facecolor": "white", "svg.fonttype": "path",
    "text.hinting": "none", "svg.hashsalt": "secateur", "axes.unicode_minus": False, "lines.linewidth": 1.4,
    "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One plot to be drawn: its file name and what draws it (None when there is nothing to show)."""

    name: str
    draw: Callable[[Texts], Figure | None]


@dataclass(frozen=True)
class Plot:
    """A drawn plot."""

    name: str
    svg: bytes
    png: bytes


def cjk_font() -> str | None:
    """Family name of an installed font with Chinese glyphs, or None."""
    for entry in font_manager.fontManager.ttflist:
        if CJK.search(entry.name):
            return entry.name
    for path in font_manager.findSystemFonts():
        if FILES.search(Path(path).name):
            try:
                font_manager.fontManager.addfont(path)
            except (OSError, RuntimeError):
                continue
            return font_manager.fontManager.ttflist[-1].name
    return None


def settings(lang: str) -> Any:
    """Our settings; for Chinese with a font that has the glyphs."""
    family = ["DejaVu Sans"]
    if lang == "zh" and (font := cjk_font()):
        family = [font, *family]
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return {**SETTINGS, "font.family": family}


def render(job: Job, texts: Texts) -> Plot | None:
    """Draw one plot and encode it as SVG and PNG."""
    with mpl.rc_context(settings(texts.lang)):
        figure = job.draw(texts)
        if figure is None:
            return None
        for axes in figure.axes:  # what lies inside its axes need not be measured for the layout
            for artist in (*axes.lines, *axes.texts, *axes.collections, *axes.patches, *axes.images):
                artist.set_in_layout(False)
        svg, png = io.BytesIO(), io.BytesIO()
        # the canvases' own writers draw once; Figure.savefig draws every time a second, invisible time
        FigureCanvasAgg(figure).print_png(png, pil_kwargs={"compress_level": 1})
        figure.set_layout_engine("none")  # the layout of the first drawing serves the second
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": "secateur"})
    return Plot(job.name, svg.getvalue(), png.getvalue())


def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with axes [rows, columns]; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method, the same in every plot."""
    return {
        name: (PALETTE[index % len(PALETTE)], MARKERS[(index + index // len(PALETTE)) % len(MARKERS)])
        for index, name in enumerate(sorted(names))
    }


def plain_log(axes: Axes, axis: str = "x") -> None:
    """A logarithmic axis with plain numbers."""
    getattr(axes, f"set_{axis}scale")("log")
    target = getattr(axes, f"{axis}axis")
    target.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    target.set_minor_locator(NullLocator())
    target.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def wide_range(values: np.ndarray, factor: float = 8.0) -> bool:
    """Whether positive values span so much that a logarithmic axis reads better."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() / finite.min() > factor)


def annotate_heat(axes: Axes, image: Any, values: np.ndarray, layout: str) -> None:
    """Write the values into the cells of a heat map, dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(column, row, layout.format(value), ha="center", va="center", fontsize=7.5,
                      color="white" if dark else "black")  # fmt: skip
