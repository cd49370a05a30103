"""Draw the plots of a report beside what else is to be done."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from secateur.analysis.parallel import forked
from secateur.analysis.plots.style import Job, Plot, cjk_font, render
from secateur.analysis.texts import Texts

SEVERAL = 8
"""From this number of plots on, several processes draw."""


def plot_texts(texts: Texts) -> Texts:
    """Texts for plot labels: English where no installed font has Chinese glyphs."""
    return type(texts)("en") if texts.lang == "zh" and cjk_font() is None else texts


@contextmanager
def drawing(listed: list[Job], texts: Texts) -> Generator[Callable[[], dict[str, Plot]]]:
    """Draw every plot that has something to show, in processes beside this one; what is given waits for them."""
    words = plot_texts(texts)
    with forked(lambda place: render(listed[place], words), len(listed), SEVERAL) as collect:
        yield lambda: {plot.name: plot for plot in collect() if plot is not None}
