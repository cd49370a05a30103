"""2,000 files of 500 MB, and one CSV of 2 GB: time and memory of the whole command, its processes included."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FILES, BYTES = 2000, 500_000_000
SECONDS, MEMORY = 60.0, 1_000_000_000


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "model": rng.choice(["a", "b", "c"], rows), "n_prompt": rng.choice([64, 128, 256], rows),
        "tokens_per_second": rng.normal(100, 5, rows), "ttft_ms": rng.normal(50, 2, rows),
        "memory_mb": rng.normal(800, 10, rows), "note": [f"row {place}" for place in range(rows)],
    })  # fmt: skip


def originals(folder: Path) -> list[Path]:
    """One file of each type, about a quarter of a megabyte each."""
    folder.mkdir()
    frame(3400).to_csv(folder / "speed.csv", index=False)
    rows = frame(1850).to_dict("records")
    (folder / "bench.json").write_text(json.dumps({"model": "m1", "results": rows}))
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    frame(6000).to_parquet(folder / "data.parquet", compression=None)
    with sqlite3.connect(folder / "base.db") as database:
        frame(4400).to_sql("runs", database, index=False)
    table = frame(3100)
    lines = ["|".join(["", *map(str, row), ""]) for row in table.itertuples(index=False)]
    (folder / "notes.md").write_text(
        "\n".join(["|" + "|".join(table.columns) + "|", "|" + "--|" * 6, *lines])
    )
    return sorted(folder.iterdir())


def measured(folder: Path, out: Path) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak memory (proportional set size, all processes) of the command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "secateur", "insight", f"dir={folder}", f"out={out}"]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    cpu = os.times()
    while process.poll() is None:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except (psutil.Error, FileNotFoundError):
                continue
        peak = max(peak, total)
        time.sleep(0.1)
    after = os.times()
    assert process.returncode == 0
    seconds = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    return time.perf_counter() - began, seconds, peak


def limit_kept(wall: float, cpu: float) -> bool:
    """Whether the time is kept; where other programs hold the cores, by what it would take alone on two of them."""
    return wall < SECONDS or (os.getloadavg()[0] > (os.cpu_count() or 1) and cpu / 2 < SECONDS)


def test_two_thousand_files(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    sources = originals(tmp_path / "originals")
    written = 0
    for place in range(FILES):
        source = sources[place % len(sources)]
        target = folder / f"d{place // 100:02d}" / f"{source.stem}_{place:04d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        written += target.stat().st_size
    assert written > BYTES
    wall, cpu, peak = measured(folder, tmp_path / "out")
    machine = json.loads((tmp_path / "out" / "insight.json").read_text())
    counts = machine["inventory"]["counts"]
    assert (counts["files"], counts["read"]) == (FILES, FILES)
    rows = {".csv": 3400, ".json": 1850, ".jsonl": 1850, ".parquet": 6000, ".db": 4400, ".md": 3100}
    expected = sum(rows[path.suffix] for path in folder.rglob("*.*"))
    assert counts["rows"] == expected  # exact, although only a sample is kept
    print(f"{written / 1e6:.0f} MB: {wall:.1f} s wall, {cpu:.1f} s CPU, {peak / 1e6:.0f} MB")
    assert limit_kept(wall, cpu), (wall, cpu)
    assert peak < MEMORY


def test_a_csv_of_two_gigabytes(tmp_path: Path) -> None:
    block = frame(200_000).drop(columns="note").to_csv(index=False, header=False).encode()
    folder = tmp_path / "big"
    folder.mkdir()
    copies = 2_000_000_000 // len(block) + 1
    with (folder / "speed.csv").open("wb") as handle:
        handle.write(b"model,n_prompt,tokens_per_second,ttft_ms,memory_mb\n")
        for place in range(copies):
            handle.write(block)
            if place == copies // 2:
                handle.write(b"a,64,9876.5,50,800\n")  # one row in millions
    wall, cpu, peak = measured(folder, tmp_path / "out")
    (folder / "speed.csv").unlink()
    machine = json.loads((tmp_path / "out" / "insight.json").read_text())
    print(f"2 GB: {wall:.1f} s wall, {cpu:.1f} s CPU, {peak / 1e6:.0f} MB")
    assert peak < MEMORY
    assert machine["inventory"]["counts"]["rows"] == copies * 200_000 + 1
    odd = [item for item in machine["findings"] if item["kind"] == "outlier"]
    assert 9876.5 in [
        item["numbers"]["value"]["value"] for item in odd if item["measure"] == "tokens_per_second"
    ]
