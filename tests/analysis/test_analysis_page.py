"""`report.html` in a real headless Chromium: no console messages, images load, tables sort, nothing overflows."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,900", "--enable-logging=stderr", "--v=0",
)  # fmt: skip
PROBE = """
<script>
window.addEventListener("load", async () => {
  await Promise.all(Array.from(document.images, (image) => image.decode().catch(() => null)));
  const table = document.querySelector("#table-alpha_ties");
  const column = Array.from(table.tHead.rows[0].cells).findIndex((cell) => cell.textContent === "ACC");
  const read = () => Array.from(table.tBodies[0].rows, (row) => row.cells[column].textContent);
  const head = table.tHead.rows[0].cells[column];
  const before = read(); head.click(); const up = read(); const state = head.getAttribute("aria-sort");
  head.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true })); const down = read();
  const result = {
    before, up, down, state,
    images: Array.from(document.images, (image) => [image.alt, image.naturalWidth]),
    wide: document.documentElement.scrollWidth, tables: document.querySelectorAll("table").length,
    requests: performance.getEntriesByType("resource")
      .map((entry) => entry.name).filter((name) => !name.startsWith("data:")),
  };
  const node = document.createElement("pre"); node.id = "probe"; node.textContent = JSON.stringify(result);
  document.body.append(node);
});
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium installed (Debian: apt-get install chromium)")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_page_in_a_browser(reports: dict[str, Path], tmp_path: Path, lang: str) -> None:
    assert BROWSER is not None
    page = tmp_path / "page.html"
    page.write_text(
        (reports[lang] / "report.html").read_text(encoding="utf-8").replace("</body>", PROBE + "</body>")
    )
    done = subprocess.run(
        [
            BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    result = json.loads(unescape(found.group(1)))
    assert len(result["images"]) == 16
    assert all(width > 300 for _, width in result["images"]), result["images"]
    assert result["tables"] > 25
    assert result["requests"] == []
    assert result["wide"] <= 1280
    numbers = [float(value) for value in result["before"]]
    assert len(set(numbers)) > 4
    assert [float(value) for value in result["up"]] == sorted(numbers)
    assert [float(value) for value in result["down"]] == sorted(numbers, reverse=True)
    assert result["state"] == "ascending"
