"""JSON of tools that are known here, as tidy rows: results of lm-eval and of optimum-benchmark.

What such a file says of its configuration is a setting of every row and never a measurement.
"""

import math
from typing import Any

Row = dict[str, Any]
SCALAR = (str, int, float, bool)


def known_rows(document: Any) -> dict[str, list[Row]] | None:
    """Table name -> rows of a document that a known tool wrote; None of any other."""
    if not isinstance(document, dict):
        return None
    if (
        isinstance(document.get("results"), dict)
        and isinstance(document.get("configs"), dict)
        and "versions" in document
    ):
        return {"results": _lm_eval(document)}
    report, config = document.get("report"), document.get("config")
    if isinstance(report, dict) and isinstance(config, dict) and "backend" in config and "scenario" in config:
        return {"report": _optimum(report, config)}
    return None


def _lm_eval(document: Row) -> list[Row]:
    """One row per task (groups included): metrics, their errors, shots, number of questions, the model."""
    config = document.get("config") or {}
    common = {"model": document.get("model_name") or config.get("model_args") or config.get("model")}
    common |= {
        f"config.{key}": value
        for key, value in config.items()
        if isinstance(value, SCALAR) and key != "model"
    }
    rows: list[Row] = []
    for task, metrics in document["results"].items():
        if not isinstance(metrics, dict):
            continue
        row = {**common, "task": task, "num_fewshot": (document.get("n-shot") or {}).get(task)}
        counts = (document.get("n-samples") or {}).get(task)
        if isinstance(counts, dict):
            row["n"] = counts.get("effective")
        row |= {key: value for key, value in metrics.items() if key != "alias" and isinstance(value, SCALAR)}
        rows.append({key: value for key, value in row.items() if value is not None})
    return rows


def _optimum(report: Row, config: Row) -> list[Row]:
    """One row per phase (load, prefill, decode, ...): every figure under its group, its statistic and its unit."""
    common = _settings(config, "config")
    model = (config.get("backend") or {}).get("model")
    rows: list[Row] = []
    for phase, groups in report.items():
        if not isinstance(groups, dict):
            continue
        row: Row = {**common, **({"model": model} if model else {}), "phase": phase}
        for group, figures in groups.items():
            if isinstance(figures, dict):
                row |= _figures(group, figures)
        rows.append(row)
    return rows


def _figures(group: str, figures: Row) -> Row:
    unit = str(figures.get("unit") or "").replace("/", "_per_")
    names = {"mean": group, "value": group, "stdev": f"{group}_std", "stdev_": f"{group}_cv"}
    found: Row = {}
    for key, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        suffix = "pct" if key == "stdev_" else "" if key == "count" else unit
        found["_".join(part for part in (names.get(key, f"{group}_{key}"), suffix) if part)] = value
    return found


def _settings(node: Row, path: str) -> Row:
    found: Row = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= _settings(value, f"{path}.{key}")
        elif isinstance(value, SCALAR):
            found[f"{path}.{key}"] = value
    return found


class Answers:
    """lm-eval's samples, question by question, summed up: one row per filter with mean, error and count."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[int, float, float]] = {}

    @staticmethod
    def fits(row: Any) -> bool:
        """Whether a line is one of lm-eval's samples."""
        return isinstance(row, dict) and {"doc_id", "doc", "target", "filtered_resps"} <= row.keys()

    def add(self, row: Row) -> None:
        """Take one question in."""
        names = row.get("metrics") if isinstance(row.get("metrics"), list) else []
        for name in names or ("acc", "acc_norm", "exact_match"):
            value = row.get(str(name))
            if isinstance(value, int | float):
                key = str(row.get("filter", "none")), str(name)
                n, total, square = self._sums.get(key, (0, 0.0, 0.0))
                self._sums[key] = n + 1, total + float(value), square + float(value) ** 2

    def rows(self, task: str) -> list[Row]:
        """The sums; the standard error is sqrt(variance / n) with ddof = 1, as lm-eval's."""
        found: dict[str, Row] = {}
        for (chosen, name), (n, total, square) in self._sums.items():
            row = found.setdefault(chosen, {"task": task, "filter": chosen})
            mean = total / n
            row[name], row["n"] = mean, n
            if n > 1:
                row[f"{name}_stderr"] = math.sqrt(max(0.0, square - n * mean * mean) / (n - 1) / n)
        return list(found.values())
