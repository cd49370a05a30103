"""Which rows may be ranked together: protocols, how they differ, and which one is ranked."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

import math
from typing import Any

import pandas as pd

from secateur.analysis.runset import SET_ASIDE, VALID, Runs, with_frame
from secateur.pruning.files import digest

PREFERRED_PPL = ("wikitext2@2048", "wikitext2@2048/512-recount", "wikitext2@128", "world@128")


def protocol_of(card: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a protocol card that say how a number was measured.

    Calibration, seed and parameters kept are factors of an experiment, not its protocol.
    """
    screen = card.get("screen", (config.get("eval") or {}).get("screen"))
    return {
        "tasks": card.get("tasks") or {},
        "perplexity": card.get("perplexity") or [],
        "harness": card.get("harness") or {},
        "screen": screen,
    }


def protocol_id(protocol: dict[str, Any]) -> str:
    """Short name of a protocol: a digest of its content."""
    return digest(protocol, 8)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as `a.b.c` keys; lists stay whole."""
    if not isinstance(value, dict):
        return {prefix: value}
    result: dict[str, Any] = {}
    for key, inner in value.items():
        result |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return result


def differences(left: Any, right: Any) -> list[tuple[str, Any, Any]]:
    """Fields in which two nested mappings differ, as (dotted name, left, right); absent is None."""
    a, b = flatten(left), flatten(right)
    keys = [*a, *(key for key in b if key not in a)]
    return [(key, a.get(key), b.get(key)) for key in keys if not _same(a.get(key), b.get(key))]


def describe(left: Any, right: Any, limit: int = 6) -> str:
    """One line naming the differing fields, for messages: `harness.lm_eval: "0.4.12" here, "0.4.13" ranked`."""
    found = differences(left, right)
    text = "; ".join(f"{name}: {mine!r} ≠ {other!r}" for name, mine, other in found[:limit])
    return text + (f"; +{len(found) - limit}" if len(found) > limit else "")


def separate(runs: Runs, allow_mixed: bool = False, wanted: str | None = None) -> Runs:
    """Keep one protocol for ranking and set rows of every other aside, each with the fields that differ.

    The protocol of the largest number of usable runs is ranked (`wanted` names another by its id). With
    `allow_mixed` nothing is set aside and the result is marked instead.
    """
    frame = runs.frame
    usable = frame[(frame["state"] == VALID) & (frame["kind"] != "dense")]
    counts = (usable if len(usable) else frame[frame["state"] == VALID])["protocol"].value_counts(sort=False)
    if counts.empty:
        return runs
    ranked = wanted if wanted in counts.index else str(counts.idxmax())
    other = (frame["state"] == VALID) & (frame["protocol"] != ranked)
    if not other.any():
        return runs
    if allow_mixed:
        return with_frame(runs, frame, mixed=True)
    reasons = {
        name: describe(runs.protocols.get(name, {}), runs.protocols.get(ranked, {}))
        for name in frame.loc[other, "protocol"].unique()
    }
    frame = frame.copy()
    frame.loc[other, "reason"] = frame.loc[other, "protocol"].map(reasons)
    frame.loc[other, "state"] = SET_ASIDE
    return with_frame(runs, frame)


def choose_perplexity(runs: Runs) -> Runs:
    """Fill column `ppl` from one perplexity protocol: the one that most ranked runs have."""
    names = [name for name in runs.frame.columns if name.startswith("metric.") and "@" in name]
    if not names:
        return runs
    ranked = runs.frame[runs.frame["state"] == VALID]

    def rank(name: str) -> tuple[float, int]:
        short = name.removeprefix("metric.")
        preference = PREFERRED_PPL.index(short) if short in PREFERRED_PPL else len(PREFERRED_PPL)
        return (-float(ranked[name].notna().sum()), preference)

    best = min(names, key=rank)
    frame = runs.frame.copy()
    named = (
        frame[names].notna().any(axis=1)
    )  # not so: tables that do not say how their perplexity was measured
    frame["ppl"] = pd.to_numeric(frame[best], errors="coerce").where(named, frame["ppl"])
    return with_frame(runs, frame, ppl_protocol=best.removeprefix("metric."))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)
