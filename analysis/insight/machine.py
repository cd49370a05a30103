"""`insight.json`: everything of the report for programs, in strict JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateur.analysis.insight.claims import Claim
from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.guard import Checked
from secateur.analysis.insight.narrative import sentence
from secateur.analysis.insight.texts import Words
from secateur.analysis.insight.walk import MARK
from secateur.pruning.files import write_json


def write_machine(path: Path, report: Report) -> None:
    """Write the file; keys do not depend on the language."""
    words = Words(report.config.lang)
    failed = report.failed
    write_json(path, {
        "written_by": MARK,
        "schema_version": 1,
        "lang": report.config.lang,
        "day": report.day,
        "inventory": _inventory(report),
        "datasets": [
            {"name": data.name, "kind": data.kind, "files": list(data.files), "rows": data.rows,
             "rows_kept": len(data.frame),
             "columns": {n: {"role": c.role, "unit": c.unit.name if c.unit else "", "better": c.better}
                         for n, c in data.columns.items()}}
            for data in report.datasets
        ],
        "findings": [
            {"kind": told.finding.kind, "dataset": told.finding.dataset, "measure": told.finding.measure,
             "strength": told.finding.strength, "reason": told.finding.reason,
             "numbers": {key: {"fact": claim.id, "value": claim.value} for key, claim in told.claims.items()},
             "words": told.finding.words, "missing": list(told.finding.more), "text": sentence(told, words),
             "evidence": [asdict(spot) for spot in told.finding.evidence]}
            for told in report.facts.told
        ],
        "facts": [_fact(claim) for claim in report.facts.claims],
        "narrative": {name: _text(text) for name, text in report.narrative.items()},
        "guard": {"checked": report.checked, "passed": report.checked - failed, "failed": failed,
                  "altered_tried": report.chance[1], "altered_passed": report.chance[0]},
        "writer": _writer(report),
        "clock": asdict(report.clock),
    })  # fmt: skip


def _inventory(report: Report) -> dict[str, Any]:
    given = report.given
    return {
        "counts": {key: claim.value for key, claim in report.facts.inventory.items()},
        "files": [
            {"name": s.name, "type": s.type, "bytes": s.size, "modified": s.modified,
             "state": "excluded" if s.excluded else "unreadable" if s.name in given.unreadable else "read",
             "reason": s.excluded or given.unreadable.get(s.name) or given.states.get(s.name)}
            for s in given.sources
        ],
        "notes": [
            {"file": table.file, "table": table.name, "note": note} for table in given.tables for note in table.notes
        ],
    }  # fmt: skip


def _fact(claim: Claim) -> dict[str, Any]:
    unit = claim.unit.name if claim.unit is not None else ""
    return {"id": claim.id, "value": claim.value, "unit": unit, "about": claim.about, "how": claim.how,
            "evidence": [asdict(spot) for spot in claim.evidence]}  # fmt: skip


def _text(checked: Checked) -> dict[str, Any]:
    return {
        "text": checked.text,
        "figures": [
            {"start": v.figure.start, "end": v.figure.end, "text": v.figure.text, "value": v.figure.value,
             "unit": v.figure.unit.name if v.figure.unit else "", "fact": v.claim.id if v.claim else None,
             "reason": v.reason or None}
            for v in checked.verdicts
        ],
    }  # fmt: skip


def _writer(report: Report) -> dict[str, Any]:
    config = report.config.writer
    asked = config.model_dump(mode="json", exclude={"api_key_env"})
    if report.written is None:
        return {
            "asked": asked,
            "used": "templates",
            "fallback": report.fallback or None,
            "partial_characters": report.partial,
        }
    return {"asked": asked, "used": report.written.writer, "fallback": None, "finish": report.written.finish,
            "facts": report.written.facts, "timings": asdict(report.written.timings)}  # fmt: skip
