"""One table of 45 runs, and the many ways in which it may be written."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd

from secateur.analysis.insight.config import InsightConfig
from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.report import write_report

Row = dict[str, Any]
METHODS, LENGTHS, SEEDS = ("blockwise", "layerwise", "taylor"), (16, 64, 256), (0, 1, 2, 3, 4)


def rows() -> list[Row]:
    """45 runs with an effect of the method; latencies above a thousand."""
    return [
        {
            "method": method, "seq_len": length, "seed": seed,
            "acc": round(0.5 + 0.05 * m + 0.01 * n + 0.001 * ((7 * seed + 3 * m + n) % 5), 4),
            "latency_ms": round(1000 + 300 * m + 7.25 * n + 1.5 * ((3 * seed + m) % 5), 2),
        }
        for m, method in enumerate(METHODS) for n, length in enumerate(LENGTHS) for seed in SEEDS
    ]  # fmt: skip


def lines(delimiter: str, number: Callable[[str, Any], str] = lambda name, value: str(value)) -> str:
    table = rows()
    text = [delimiter.join(table[0])]
    for row in table:
        cells = [number(name, value) for name, value in row.items()]
        text.append(delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in cells))
    return "\n".join(text) + "\n"


def comma(name: str, value: Any) -> str:
    return str(value).replace(".", ",")


def german(name: str, value: Any) -> str:
    return (
        f"{value:,.2f}".translate(str.maketrans(",.", ".,")) if name == "latency_ms" else comma(name, value)
    )


def thousands(name: str, value: Any) -> str:
    return f"{value:,.2f}" if name == "latency_ms" else str(value)


def spaced(name: str, value: Any) -> str:
    return f"{value:,.2f}".replace(",", "\u202f") if name == "latency_ms" else str(value)


def with_units(name: str, value: Any) -> str:
    return (
        {"acc": f"{100 * value:.2f} %", "latency_ms": f"{value / 1000:.5f} s"}.get(name, str(value))
        if isinstance(value, float)
        else str(value)
    )


def short(name: str, value: Any) -> str:
    return f"{value / 1000:.5f}k" if name == "latency_ms" else str(value)


def excel(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(list(rows()[0]))
    for row in rows():
        sheet.append(list(row.values()))
    book.save(path)


def columns() -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows()] for name in rows()[0]}


WAYS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "comma": ("a.csv", lambda p: p.write_text(lines(","))),
    "semicolon": ("a.csv", lambda p: p.write_text(lines(";"))),
    "tab": ("a.tsv", lambda p: p.write_text(lines("\t"))),
    "pipe": ("a.csv", lambda p: p.write_text(lines("|"))),
    "decimal comma": ("a.csv", lambda p: p.write_text(lines(";", comma))),
    "decimal comma, quoted": ("a.csv", lambda p: p.write_text(lines(",", comma))),
    "german thousands": ("a.csv", lambda p: p.write_text(lines(";", german))),
    "thousands": ("a.csv", lambda p: p.write_text(lines(",", thousands))),
    "thin spaces": ("a.csv", lambda p: p.write_text(lines(",", spaced))),
    "units": ("a.csv", lambda p: p.write_text(lines(",", with_units))),
    "k": ("a.csv", lambda p: p.write_text(lines(",", short))),
    "BOM": ("a.csv", lambda p: p.write_text(lines(","), encoding="utf-8-sig")),
    "CRLF": ("a.csv", lambda p: p.write_bytes(lines(",").replace("\n", "\r\n").encode())),
    "UTF-16": ("a.csv", lambda p: p.write_text(lines("\t"), encoding="utf-16")),
    "UTF-16, decimal comma": ("a.csv", lambda p: p.write_text(lines(";", comma), encoding="utf-16")),
    "gz": ("a.csv.gz", lambda p: p.write_bytes(gzip.compress(lines(",").encode()))),
    "gz, UTF-16": ("a.csv.gz", lambda p: p.write_bytes(gzip.compress(lines(",").encode("utf-16")))),
    "Excel": ("a.xlsx", excel),
    "JSON lines": ("a.jsonl", lambda p: p.write_text("\n".join(map(json.dumps, rows())))),
    "JSON lines, gz": (
        "a.jsonl.gz", lambda p: p.write_bytes(gzip.compress("\n".join(map(json.dumps, rows())).encode()))),
    "JSON records": ("a.json", lambda p: p.write_text(json.dumps(rows()))),
    "JSON words": ("a.json", lambda p: p.write_text(json.dumps([{k: str(v) for k, v in r.items()} for r in rows()]))),
    "JSON gz": ("a.json.gz", lambda p: p.write_bytes(gzip.compress(json.dumps(rows()).encode()))),
    "JSON columns": ("a.json", lambda p: p.write_text(json.dumps(columns()))),
    "JSON of pandas": ("a.json", lambda p: p.write_text(pd.DataFrame(rows()).to_json())),
    "JSON split": ("a.json", lambda p: p.write_text(pd.DataFrame(rows()).to_json(orient="split"))),
    "parquet": ("a.parquet", lambda p: pd.DataFrame(rows()).to_parquet(p)),
    "Markdown": ("a.md", lambda p: p.write_text(
        "# A\n\n|" + "|".join(rows()[0]) + "|\n|--|--|--|--|--|\n"
        + "".join("|" + "|".join(map(str, r.values())) + "|\n" for r in rows()))),
}  # fmt: skip


def report(folder: Path) -> Report:
    return write_report(InsightConfig(dir=str(folder), out=str(folder.parent / "out")))[0]


def told(made: Report) -> dict[str, dict[str, Any]]:
    """Every finding by what it is about; numbers as they are."""
    found: dict[str, dict[str, Any]] = {}
    for item in made.findings:
        key = (
            f"{item.kind} {item.measure} {item.words.get('factor', '')} {item.words.get('word', '')}".strip()
        )
        words = {name: text for name, text in item.words.items() if name.endswith("label")}
        found[key] = {**words, **{name: number.value for name, number in item.numbers.items()}}
    return found


def write(folder: Path, way: str) -> Path:
    name, put = WAYS[way]
    folder.mkdir()
    put(folder / name)
    return folder
