"""The measurements that a report is about: cells, single samples, facts of the models, loads, limits of the machine."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.model_names import Origin, unique_names

PREFILL, DECODE, BOTH = "prefill", "decode", "both"
PHASES = (PREFILL, DECODE, BOTH)
SETTING = "set."
"""How the columns of settings begin."""
CELL_COLUMNS = (
    *("source", "place", "tool", "model", "subject", "phase", "n_prompt", "n_gen", "batch", "largest"),
    *(
        "n",
        "tokens",
        "seconds",
        "tokens_per_s",
        "sd",
        "cv",
        "first_token_s",
        "memory_bytes",
        "started",
        "raw",
    ),
)
AXES = ("n_prompt", "n_gen", "batch")


@dataclass(frozen=True)
class Speeds:
    """Measurements of one or many sources.

    Attributes:
        cells: One row per cell and phase: where it is from, its size, its speed, and every setting as `set.KEY`.
            `tokens_per_s` is that of the median pass, `sd` and `cv` (share) are over the passes.
        samples: One row per pass: `cell` (row of `cells`), `round`, `seconds`, `tokens_per_s`.
        facts: Per source and variant what is known of the model (`secateur.eval.speed.journal.Facts`).
        loads: One row per load in a process of its own.
        roofs: (source, what its machine can do at best).
        sources: Where measurements are from -> versions, machine and commit, as far as the source says.
        notes: (key, values) of what the reader must know: incomplete sweeps, cells that failed or were left out.
    """

    cells: pd.DataFrame
    samples: pd.DataFrame
    facts: dict[tuple[str, int], Any] = field(default_factory=dict)
    loads: pd.DataFrame = field(default_factory=pd.DataFrame)
    roofs: tuple[Any, ...] = ()
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[tuple[str, dict[str, Any]], ...] = ()

    def settings(self) -> list[str]:
        """Names of all settings, without prefix."""
        return [name.removeprefix(SETTING) for name in self.cells.columns if name.startswith(SETTING)]

    def varied(self) -> list[str]:
        """Settings with more than one value."""
        return [n for n in self.settings() if len(set(self.cells[SETTING + n].map(str))) > 1]


def make(
    rows: list[dict[str, Any]], passes: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and samples as frames.

    Args:
        rows: Columns of `cells`; speeds are filled in where `passes` has samples.
        passes: Per row its rounds and seconds; empty arrays where a source gives averages only.
    """
    taken: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    for place, (row, (rounds, seconds)) in enumerate(zip(rows, passes, strict=True)):
        if len(seconds):
            speed = row["tokens"] / seconds
            taken.append((place, rounds, seconds, speed))
            row |= spread(speed)
            row["seconds"] = float(np.median(seconds))
            row["tokens_per_s"] = row["tokens"] / row["seconds"]
    frame = pd.DataFrame(rows)
    settings = sorted(name for name in frame.columns if name.startswith(SETTING))
    cells = frame.reindex(columns=[*CELL_COLUMNS, *settings])
    if not taken:
        return cells, pd.DataFrame(columns=["cell", "round", "seconds", "tokens_per_s"])
    counts = [len(seconds) for _, _, seconds, _ in taken]
    samples = pd.DataFrame({
        "cell": np.repeat([place for place, *_ in taken], counts),
        "round": np.concatenate([rounds for _, rounds, _, _ in taken]),
        "seconds": np.concatenate([seconds for _, _, seconds, _ in taken]),
        "tokens_per_s": np.concatenate([speed for *_, speed in taken]),
    })  # fmt: skip
    return cells, samples


def spread(speed: np.ndarray) -> dict[str, float]:
    """Number, sample standard deviation (ddof = 1) and coefficient of variation (share) of the passes."""
    sd = float(np.std(speed, ddof=1)) if len(speed) > 1 else float("nan")
    return {"n": float(len(speed)), "sd": sd, "cv": sd / float(np.mean(speed))}


def join(parts: Sequence[Speeds]) -> Speeds:
    """All measurements together; rows keep their order."""
    cells: list[pd.DataFrame] = []
    samples: list[pd.DataFrame] = []
    offset = 0
    for part in parts:
        cells.append(part.cells)
        samples.append(part.samples.assign(cell=part.samples["cell"].astype("int64") + offset))
        offset += len(part.cells)
    filled = [frame for frame in samples if len(frame)] or samples[:1]
    loads = [part.loads for part in parts if len(part.loads)]
    return _named(
        Speeds(
            cells=pd.concat([c.dropna(axis=1, how="all") for c in cells], ignore_index=True).reindex(
                columns=_columns(cells)
            ),
            samples=pd.concat(filled, ignore_index=True),
            facts={key: value for part in parts for key, value in part.facts.items()},
            loads=pd.concat(loads, ignore_index=True) if loads else pd.DataFrame(),
            roofs=tuple(roof for part in parts for roof in part.roofs),
            sources={key: value for part in parts for key, value in part.sources.items()},
            notes=tuple(dict.fromkeys(_frozen(note) for part in parts for note in part.notes)),
        )
    )


def _named(speeds: Speeds) -> Speeds:
    """The same with a name of its own for every model: two folders of one name are two models."""
    wanted = [SETTING + "model.name", SETTING + "model.path"]
    frame = speeds.cells.reindex(columns=["source", "place", "model", *wanted]).drop_duplicates()
    known: dict[tuple[str, int], Origin] = {}
    for source, place, model, *words in frame.itertuples(index=False):
        facts = speeds.facts.get((source, place))
        if facts is not None:
            name, path = (word if isinstance(word, str) else "" for word in words)
            known[source, place] = Origin(name or model, path, f"{facts.fingerprint} {name or model}")
    names = unique_names({origin.key: origin for origin in known.values()})
    called = {place: names[origin.key] for place, origin in known.items()}
    return replace(
        speeds,
        cells=_renamed(speeds.cells, "place", called),
        loads=_renamed(speeds.loads, "variant", called),
    )


def _renamed(table: pd.DataFrame, place: str, called: dict[tuple[str, int], str]) -> pd.DataFrame:
    """Models by their own names; subjects that begin with the model's name follow, those of runs are unique."""
    if table.empty:
        return table
    old = [str(name) for name in table["model"]]
    new = [
        called.get(key, name)
        for key, name in zip(zip(table["source"], table[place], strict=True), old, strict=True)
    ]
    runs = table.reindex(columns=[SETTING + "bench.run"]).iloc[:, 0].notna()
    subjects = [
        subject if run else name + str(subject).removeprefix(before)
        for subject, run, name, before in zip(table["subject"], runs, new, old, strict=True)
    ]
    return table.assign(model=new, subject=subjects)


class _Note(tuple[str, dict[str, Any]]):
    """A note that can be told from others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash((self[0], repr(self[1])))


def _frozen(note: tuple[str, dict[str, Any]]) -> _Note:
    return _Note(note)


def _columns(parts: list[pd.DataFrame]) -> list[str]:
    return list(dict.fromkeys([*CELL_COLUMNS, *(str(name) for part in parts for name in part.columns)]))
