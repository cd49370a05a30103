"""The pages in a real headless Chromium at 1400 and 420 px: no element wider than the window, first columns stay."""

import html
import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_analysis_page import BROWSER, FLAGS

from secateur.analysis.insight.config import InsightConfig
from secateur.analysis.insight.report import write_report

PROBE = """
<script>
window.addEventListener("load", async () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, view = frame.contentWindow;
  await Promise.all(Array.from(page.images, (image) => image.decode().catch(() => null)));
  const inside = (node) => node.closest(".scroll, figure, .prose table, pre");
  const wide = Array.from(page.querySelectorAll("main *, nav *"))
    .filter((node) => !inside(node.parentElement ?? node) && node.getBoundingClientRect().right > view.innerWidth + 1)
    .map((node) => node.tagName + "." + node.className);
  const boxes = Array.from(page.querySelectorAll(".scroll"));
  const stuck = boxes.filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => {
    const cell = box.querySelector("tbody td"), before = cell.getBoundingClientRect().left;
    box.scrollLeft = 10000;
    return Math.abs(cell.getBoundingClientRect().left - before) <= 2;
  });
  const list = page.querySelector("nav details > ol");
  const result = { width: view.innerWidth, page: page.documentElement.scrollWidth, wide: wide.slice(0, 5), stuck,
                   folded: list.getBoundingClientRect().height === 0 };
  const node = document.createElement("pre"); node.id = "probe"; node.textContent = JSON.stringify(result);
  document.body.append(node);
});
</script>"""
WIDTHS = {1400: False, 420: True}
"""Width of the window -> whether the sidebar is folded there."""


def probe(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """The page in a frame of a width that no window of a desktop browser has."""
    assert BROWSER is not None
    text = html.escape(page.read_text(encoding="utf-8"), quote=True)
    shell = folder / f"{page.stem}_{width}.html"
    shell.write_text(f'<body style="margin:0"><iframe style="border:0;width:{width}px;height:900px" srcdoc="{text}">'
                     f"</iframe>{PROBE}</body>", encoding="utf-8")  # fmt: skip
    command = [BROWSER, *FLAGS, "--window-size=1500,1000", f"--user-data-dir={folder / 'profile'}",
               "--virtual-time-budget=20000", "--dump-dom", shell.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-500:]
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def insight(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("insight")
    return write_report(InsightConfig(dir=str(run_folder), out=str(out)))[1][0]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["runs", "insight"])
def test_nothing_is_wider_than_the_window(
    reports: dict[str, Path], insight: Path, tmp_path: Path, width: int, which: str
) -> None:
    page = reports["en"] / "report.html" if which == "runs" else insight
    seen = probe(page, width, tmp_path)
    assert seen["width"] == width
    assert seen["page"] <= width
    assert seen["wide"] == []
    assert all(seen["stuck"])
    assert seen["folded"] == WIDTHS[width]
    if width < 1000:
        assert seen["stuck"]  # some table is wider than a phone
