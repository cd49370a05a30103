"""Any CSV table of speeds in: a YAML file says which column is which. Rows of one cell are its passes."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError

from secateur.analysis.speed.importers import as_number, csv_rows, read_filled
from secateur.analysis.speed.measurements import DECODE, PREFILL, SETTING, Speeds, make
from secateur.pruning.config import Frozen
from secateur.pruning.errors import ConfigError, DataError

WORDS = {"pp": PREFILL, "prefill": PREFILL, "prompt": PREFILL, "tg": DECODE, "decode": DECODE, "gen": DECODE}


class SpeedMapping(Frozen):
    """How a table of speeds is read. Every column that is not named here is a setting.

    Attributes:
        name: Shown in the report as the tool.
        model, phase: Their columns; phases are pp, prefill, prompt, tg, decode or gen.
        n_prompt, n_gen, batch: Their columns of the sizes.
        tokens_per_s, seconds: Their column of the speed, or of the time of a pass: exactly one is given.
        unit: Of `seconds`: s, ms, us or ns.
        constants: Our name -> a value for all rows, instead of a column.
        ignore: Columns that are neither setting nor result (row numbers, times of day).
    """

    name: str
    model: str = "model"
    phase: str = "phase"
    n_prompt: str = "n_prompt"
    n_gen: str = "n_gen"
    batch: str | None = None
    tokens_per_s: str | None = None
    seconds: str | None = None
    unit: Literal["s", "ms", "us", "ns"] = "s"
    constants: Annotated[dict[str, str | int], Field()] = {}
    ignore: tuple[str, ...] = ()


UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def read_speed_mapping(path: Path) -> SpeedMapping:
    """Read a mapping from YAML.

    Raises:
        ConfigError: The file is missing, not YAML, or not such a mapping.
    """
    try:
        mapping = SpeedMapping.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"mapping={path}: cannot be read ({error}); docs/speed.md shows one") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ConfigError(f"mapping={path}: {where}: {first['msg']}; docs/speed.md shows one") from error
    if (mapping.tokens_per_s is None) == (mapping.seconds is None):
        raise ConfigError(f"mapping={path}: give exactly one of tokens_per_s and seconds")
    return mapping


def load_speed_csv(path: Path, mapping: SpeedMapping) -> Speeds:
    """Read one CSV table of speeds.

    Raises:
        DataError: The file is missing or malformed, a column is missing, a cell is no number; the line is named.
    """
    header, lines = csv_rows(path, read_filled(path, "csv"))
    known = {
        ours: getattr(mapping, ours)
        for ours in ("model", "phase", "n_prompt", "n_gen", "batch", "tokens_per_s", "seconds")
        if ours not in mapping.constants and getattr(mapping, ours) is not None
    }
    lacking = [f"{theirs} (for {ours})" for ours, theirs in known.items() if theirs not in header]
    if lacking:
        raise DataError(f"{path}, line 1: column missing: {', '.join(lacking)}; it has {', '.join(header)}")
    others = [name for name in header if name not in (*known.values(), *mapping.ignore)]
    groups: dict[tuple[Any, ...], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for line, cells in lines:
        raw = dict(zip(header, cells, strict=True))
        groups[_cell(path, line, raw, known, mapping, others)].append((line, raw))
    rows: list[dict[str, Any]] = []
    passes: list[tuple[np.ndarray, np.ndarray]] = []
    for (model, phase, prompt, gen, batch, *values), found in groups.items():
        tokens = batch * (prompt if phase == PREFILL else gen)
        if tokens <= 0:
            raise DataError(
                f"{path}, line {found[0][0]}: {phase} without tokens (n_prompt={prompt}, n_gen={gen})"
            )
        rows.append({
            "source": str(path), "place": found[0][0], "tool": mapping.name, "model": model, "subject": model,
            "phase": phase, "n_prompt": prompt, "n_gen": gen, "batch": batch, "largest": False, "tokens": tokens,
            "raw": json.dumps([raw for _, raw in found], ensure_ascii=False),
            **{f"{SETTING}{name}": value for name, value in zip(others, values, strict=True)},
        })  # fmt: skip
        seconds = np.array([_seconds(path, line, raw, mapping, tokens) for line, raw in found])
        passes.append((np.arange(len(found)), seconds))
    cells, samples = make(rows, passes)
    return Speeds(cells, samples)


def _cell(
    path: Path,
    line: int,
    raw: dict[str, str],
    known: dict[str, str],
    mapping: SpeedMapping,
    others: list[str],
) -> tuple[Any, ...]:
    """What a pass is a repetition of: model, phase, sizes, settings."""

    def value(ours: str, default: str) -> str:
        return str(mapping.constants.get(ours, raw[known[ours]] if ours in known else default)).strip()

    word = value("phase", "").lower()
    if word not in WORDS:
        raise DataError(f"{path}, line {line}: phase {word!r} is not one of {', '.join(WORDS)}")
    sizes = (
        int(as_number(path, line, n, value(n, d)))
        for n, d in (("n_prompt", ""), ("n_gen", ""), ("batch", "1"))
    )
    return (value("model", ""), WORDS[word], *sizes, *(raw[name] for name in others))


def _seconds(path: Path, line: int, raw: dict[str, str], mapping: SpeedMapping, tokens: int) -> float:
    name = mapping.tokens_per_s or mapping.seconds
    assert name is not None
    number = as_number(path, line, name, raw[name])
    if number <= 0:
        raise DataError(f"{path}, line {line}: {name}={raw[name]} is not above 0")
    return tokens / number if mapping.tokens_per_s else number * UNITS[mapping.unit]
