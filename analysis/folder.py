"""A report's folder: every file written whole, and nothing of an earlier report left among those of this one."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.pruning.files import write_atomic

if TYPE_CHECKING:
    from secateur.analysis.document import Document
    from secateur.analysis.plots.style import Plot
    from secateur.analysis.texts import Texts

LISTING = ".report-files"
"""Names, one a line, of what the last report in a folder consists of."""


def write_bytes(path: Path, data: bytes) -> None:
    """Put a file in place at once."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomic(path, fill)


def write_document(document: "Document", drawn: "dict[str, Plot]", out: Path, texts: "Texts") -> list[Path]:
    """Write the page, the Markdown and the plots; returns the paths, the page first."""
    from secateur.analysis.markdown import to_markdown
    from secateur.analysis.page import to_html

    files = {
        out / "report.html": to_html(document, drawn, texts).encode(),
        out / "report.md": to_markdown(document, set(drawn), texts).encode(),
    }
    for plot in drawn.values():
        files[out / "plots" / f"{plot.name}.svg"] = plot.svg
        files[out / "plots" / f"{plot.name}.png"] = plot.png
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)


def settle(out: Path, paths: Iterable[Path]) -> None:
    """Remove what the report before this one wrote here and this one did not; files of other origin stay."""
    listing = out / LISTING
    now = {path.relative_to(out).as_posix() for path in paths}
    before = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    for name in set(before) - now:
        stale = (out / name).resolve()
        if stale.is_relative_to(out.resolve()):
            stale.unlink(missing_ok=True)
    write_bytes(listing, "".join(f"{name}\n" for name in sorted(now)).encode())
