"""CSV tables of other tools in, `Runs` out. A YAML mapping says which of their columns is which of ours."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

import csv
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from secateur.analysis.load import check_accuracy
from secateur.analysis.missing import is_missing
from secateur.analysis.model_names import Origin
from secateur.analysis.protocol import protocol_id
from secateur.analysis.runset import (
    FAILED,
    INVALID,
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    VALID,
    Runs,
    complete,
    empty_layers,
)
from secateur.eval.config import TASKS
from secateur.pruning.config import Frozen
from secateur.pruning.errors import ConfigError, DataError

TRUE = frozenset({"true", "1", "1.0", "yes", "done", "ok"})


class Mapping(Frozen):
    """How a foreign table is read.

    Attributes:
        name: Shown in the report.
        model: `stem` takes the model's name from the file name, `column` from `columns.model`, else the name itself.
        columns: Our column name -> theirs.
        required: Our columns that the table must have.
        run_id: Their column that identifies a row; without it the factors do.
        success: Their column that tells finished from failed rows.
        error: Their column with the reason of a failure.
        ppl_protocol: Full protocol name of the perplexity column.
        questions: Task -> number of questions, for standard errors that the table lacks.
        protocol: Free description; tables of different description are not ranked together.
        constants: Our column -> a value for all rows.
    """

    name: str
    model: str = "stem"
    columns: dict[str, str]
    required: tuple[str, ...] = ("method", "acc_mean")
    run_id: str | None = None
    success: str | None = None
    error: str | None = None
    ppl_protocol: str | None = None
    questions: dict[str, int] = {}
    protocol: dict[str, Any] = {}
    constants: dict[str, str | float] = {}


def read_mapping(path: Path) -> Mapping:
    """Read a mapping from YAML.

    Raises:
        ConfigError: The file is missing, not YAML, or names columns that do not exist.
    """
    try:
        return _mapping(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"mapping={path}: cannot be read ({error}). Give a YAML file; see docs/analysis.md."
        ) from error


def built_in() -> list[Mapping]:
    """The mappings that ship with the package."""
    folder = resources.files("secateur.analysis") / "mappings"
    files = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".yaml")), key=lambda item: item.name
    )
    return [_mapping(item.read_text(encoding="utf-8"), item.name) for item in files]


def load_csv(path: Path, mapping: Mapping | None = None) -> Runs:
    """Read one CSV table.

    Cells that should be numbers and are not make their row invalid, with file line and cell named; `inf` is kept.

    Raises:
        DataError: The file is missing, empty, not text, or lacks required columns (all are named).
    """
    header, lines = _read(path)
    mapping = mapping or _recognise(header, path)
    lacking = [f"{mapping.columns.get(name, name)} (for {name})" for name in mapping.required
               if mapping.columns.get(name, name) not in header and name not in mapping.constants]  # fmt: skip
    if lacking:
        raise DataError(
            f"{path}: column missing: {', '.join(lacking)}. The table has: {', '.join(header)}. "
            f"Give mapping=FILE.yaml if its columns have other names."
        )
    raw = pd.DataFrame(lines, columns=header, dtype="str")
    return _build(path, raw, mapping)


def _build(path: Path, raw: pd.DataFrame, mapping: Mapping) -> Runs:
    frame = pd.DataFrame(index=raw.index)
    frame["state"] = VALID
    frame["reason"] = None
    present = {ours: theirs for ours, theirs in mapping.columns.items() if theirs in raw}
    wrong: dict[int, list[str]] = {}
    for ours, theirs in present.items():
        frame[ours] = (
            raw[theirs].str.strip() if ours in TEXT_COLUMNS else _numbers(raw[theirs], theirs, wrong)
        )
    for ours, value in mapping.constants.items():
        frame[ours] = value
    for row, texts in wrong.items():
        frame.loc[row, "state"] = INVALID
        frame.loc[row, "reason"] = f"line {row + 2}: {', '.join(texts)}"
    if mapping.model == "stem":
        frame["model"] = path.stem.replace("_", " ").strip().capitalize()
    elif mapping.model != "column":
        frame["model"] = mapping.model
    if "kind" not in frame:
        frame["kind"] = "pruned"
    frame["source"] = [f"{path}:{row + 2}" for row in raw.index]
    _mark_failures(frame, raw, mapping)
    if "run_id" not in frame:
        frame["run_id"] = _name(frame)
    own = raw[mapping.run_id] if mapping.run_id in raw else frame["run_id"]
    frame["identity"] = frame["model"].astype("str") + " " + own.fillna("")
    name = protocol_id(mapping.protocol or {"mapping": mapping.name})
    frame["protocol"] = name
    frame = _standard_errors(complete(frame), mapping.questions)
    frame["model_key"] = frame["model_key"].fillna(frame["model"])
    if mapping.ppl_protocol is not None:
        frame[f"metric.{mapping.ppl_protocol}"] = frame["ppl"]
    return Runs(frame=check_accuracy(frame), layers=empty_layers(), protocols={name: mapping.protocol},
                origins=_origins(frame))  # fmt: skip


def _mark_failures(frame: pd.DataFrame, raw: pd.DataFrame, mapping: Mapping) -> None:
    if mapping.success in raw:
        failed = ~raw[mapping.success].str.strip().str.lower().isin(TRUE)
        frame.loc[failed, "state"] = FAILED
        frame.loc[failed, "reason"] = (
            raw[mapping.error] if mapping.error in raw else f"{mapping.success}: " + raw[mapping.success]
        )


def _origins(frame: pd.DataFrame) -> dict[str, Origin]:
    """A table knows names, and fingerprints where it is our own."""
    pairs = {str(key): str(name) for key, name in zip(frame["model_key"], frame["model"], strict=True)}
    return {key: Origin(name, fingerprint="" if key == name else key) for key, name in pairs.items()}


def _numbers(cells: pd.Series, name: str, wrong: dict[int, list[str]]) -> pd.Series:
    """Cells as numbers; what is neither a number nor a word for "missing" is recorded under its row."""
    text = cells.fillna("").str.strip()
    empty = text.map(is_missing)
    values = pd.to_numeric(text.where(~empty, None), errors="coerce").astype(float)
    for row in values.index[values.isna() & ~empty]:
        wrong.setdefault(int(row), []).append(f"{name}={text[row]!r}")
    return values


def _name(frame: pd.DataFrame) -> pd.Series:
    """Readable name of each row: its factors, for example `Llama/taylor/16x128`."""
    parts = [frame[name].astype("str") for name in ("model", "method", "calibration") if name in frame]
    if "seq_len" in frame and "num_samples" in frame:
        parts.append(frame["seq_len"].map("{:g}".format) + "x" + frame["num_samples"].map("{:g}".format))
    parts += [f"{name}=" + frame[name].map("{:g}".format) for name in ("ratio", "seed") if name in frame]
    return parts[0].str.cat(parts[1:], sep="/")


def _standard_errors(frame: pd.DataFrame, questions: dict[str, int]) -> pd.DataFrame:
    """Fill absent standard errors of accuracies with sqrt(p (1 - p) / (n - 1)), as lm-eval estimates them."""
    for task in TASKS:
        if task in questions:
            frame[f"n_{task}"] = frame[f"n_{task}"].fillna(float(questions[task]))
        share, n = frame[f"acc_{task}"], frame[f"n_{task}"]
        with np.errstate(invalid="ignore"):
            frame[f"se_{task}"] = frame[f"se_{task}"].fillna(np.sqrt(share * (1 - share) / (n - 1)))
    return frame


def _recognise(header: list[str], path: Path) -> Mapping:
    known = built_in()
    for mapping in known:
        if all(mapping.columns.get(name, name) in header for name in mapping.required):
            return mapping
    best = max(known, key=lambda m: sum(theirs in header for theirs in m.columns.values()))
    return best if any(theirs in header for theirs in best.columns.values()) else _unknown(header, path)


def _unknown(header: list[str], path: Path) -> Mapping:
    raise DataError(
        f"{path}: not a table that is known here. It has: {', '.join(header)}. Give mapping=FILE.yaml that names "
        f"at least method and acc_mean; docs/analysis.md shows one."
    )


def read_text(path: Path, key: str) -> str:
    """The text of a file that the word `key` names.

    Raises:
        DataError: It is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{key}={path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{key}={path}: cannot be read as UTF-8 text ({error})") from error


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    rows = [row for row in csv.reader(io.StringIO(read_text(path, "csv"))) if row]
    if not rows:
        raise DataError(f"csv={path}: the file is empty")
    header = [name.strip() for name in rows[0]]
    if len(rows) == 1:
        raise DataError(f"csv={path}: has a header and no rows")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"csv={path}: column {', '.join(twice)} appears twice")
    ragged = [index + 1 for index, row in enumerate(rows) if len(row) != len(header)]
    if ragged:
        raise DataError(
            f"csv={path}: line {ragged[0]} has {len(rows[ragged[0] - 1])} cells, the header has {len(header)}"
        )
    return header, rows[1:]


def _mapping(text: str, where: str) -> Mapping:
    try:
        mapping = Mapping.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"mapping={where}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"mapping={where}: {'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
        ) from error
    known = {*TEXT_COLUMNS, *NUMBER_COLUMNS}
    unknown = [name for name in (*mapping.columns, *mapping.constants) if name not in known]
    if unknown:
        raise ConfigError(
            f"mapping={where}: unknown column {', '.join(unknown)}; ours are: {', '.join(sorted(known))}"
        )
    return mapping
