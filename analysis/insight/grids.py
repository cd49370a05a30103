"""The tables of the report, as rows of text, for Markdown and HTML alike."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from secateur.analysis.insight.claims import Claim
from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.datasets import KINDS, TIME
from secateur.analysis.insight.ingest import DATE
from secateur.analysis.insight.markup import cited
from secateur.analysis.insight.numbers import show
from secateur.analysis.insight.texts import Words

SHOWN = 50
ALIKE = 3
"""From this many folders on that hold a file of one name, they are one pattern."""


@dataclass(frozen=True)
class Grid:
    """A table: column keys, rows of text, which columns are numbers, what stands below it."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    note: str = ""
    anchors: tuple[str, ...] = ()


def inventory(report: Report, words: Words) -> list[Grid]:
    """What the folder holds."""
    grids = [_types(report, words), _kinds(report, words), _datasets(report, words), _patterns(report, words)]
    grids = [grid for grid in grids if grid.rows]
    pairs = {
        "unreadable": sorted(report.given.unreadable.items()),
        "states": sorted(report.given.states.items()),
        "notes": sorted({(table.file, note) for table in report.given.tables for note in table.notes}),
        "excluded": [(s.name, s.excluded) for s in report.given.sources if s.excluded],
    }
    grids += [_listed(name, rows, words) for name, rows in pairs.items() if rows]
    return grids


def _listed(name: str, rows: list[tuple[str, str]], words: Words) -> Grid:
    note = words("tables.more", shown=SHOWN, total=len(rows)) if len(rows) > SHOWN else ""
    shown = tuple((file, words.known("why_not", reason)) for file, reason in rows[:SHOWN])
    return Grid(name, words(f"tables.{name}"), ("file", "reason"), shown, note=note)


def _types(report: Report, words: Words) -> Grid:
    sources, bad = report.given.sources, report.given.unreadable
    rows: list[tuple[str, ...]] = []
    for kind, total in Counter(source.type for source in sources).most_common():
        own = [source for source in sources if source.type == kind]
        unread = sum(source.name in bad for source in own)
        left = sum(bool(source.excluded) for source in own)
        rows.append((kind, str(total), str(total - unread - left), str(unread), str(left),
                     size(sum(s.size for s in own)), _day(max(s.modified for s in own))))  # fmt: skip
    numbers = ("files", "read", "unreadable", "excluded", "bytes")
    return Grid("types", words("tables.types"), ("type", *numbers, "newest"), tuple(rows), numbers,
                words("types_note", span=_span(report, words)))  # fmt: skip


def _span(report: Report, words: Words) -> str:
    stamps = [source.modified for source in report.given.sources]
    ends = {"oldest": _day(min(stamps)), "newest": _day(max(stamps))}
    times = [str(t) for data in report.datasets for t in data.frame[TIME].dropna().unique()]
    if not times:
        return words("span_none", **ends)
    return words("span", first=min(times), last=max(times), **ends)


def _kinds(report: Report, words: Words) -> Grid:
    rows = [
        (words(f"kinds.{kind}"), str(len({file for data in own for file in data.files})), str(len(own)),
         str(sum(data.rows for data in own)))
        for kind in KINDS if (own := [data for data in report.datasets if data.kind == kind])
    ]  # fmt: skip
    return Grid(
        "kinds",
        words("tables.kinds"),
        ("kind", "files", "datasets", "rows"),
        tuple(rows),
        ("files", "datasets", "rows"),
    )


def _datasets(report: Report, words: Words) -> Grid:
    rows = [
        (data.name, words(f"kinds.{data.kind}"), str(len(data.files)), str(data.rows), str(len(data.frame)),
         ", ".join(data.settings()[:8]), ", ".join(data.of("measure")[:8]))
        for data in report.datasets[:SHOWN]
    ]  # fmt: skip
    note = (
        words("tables.more", shown=SHOWN, total=len(report.datasets)) if len(report.datasets) > SHOWN else ""
    )
    columns = ("dataset", "kind", "files", "rows", "sampled", "settings", "measures")
    return Grid(
        "datasets", words("tables.datasets"), columns, tuple(rows), ("files", "rows", "sampled"), note
    )


def _patterns(report: Report, words: Words) -> Grid:
    """File names with dates, numbers and digests taken out, and how many files are called so."""
    found: dict[str, list[str]] = {}
    names = [source.name for source in report.given.sources]
    twins = Counter(starred(name) for name in names)
    for name in names:
        star = starred(name)
        found.setdefault(star if twins[star] >= ALIKE else name_pattern(name), []).append(name)
    ranked = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [(pattern, str(len(own)), own[0]) for pattern, own in ranked if len(own) > 1][:20]
    return Grid(
        "patterns", words("tables.patterns"), ("pattern", "files", "example"), tuple(rows), ("files",)
    )


def starred(name: str) -> str:
    """`runs/a/record.json` -> `runs/*/record.json`."""
    folder, _, base = name.rpartition("/")
    above = folder.rpartition("/")[0]
    return f"{above}/*/{base}".lstrip("/") if folder else name


def name_pattern(name: str) -> str:
    """`runs/a_20250102_17.json` -> `runs/a_{date}_{n}.json`."""
    text = DATE.sub("{date}", name)
    text = re.sub(r"(?<![0-9a-z])(?=[0-9a-f]*\d)[0-9a-f]{8,}(?![0-9a-z])", "{hex}", text)
    return re.sub(r"\d+(?:\.\d+)?(?![^{]*\})", "{n}", text)


def strengths(report: Report, words: Words) -> Grid:
    """By which rule the findings are strong, moderate or weak."""
    seen = dict.fromkeys((f.kind, f.strength, f.reason) for f in report.findings)
    rows = [
        (words(f"found.{kind}"), words(f"strength.{mark}"), words(f"reasons.{why}"))
        for kind, mark, why in seen
    ]
    return Grid("strengths", words("tables.strengths"), ("finding", "strength", "why"), tuple(rows))


def struck(report: Report, words: Words) -> Grid | None:
    """The figures that failed."""
    rows = [
        (v.figure.text, words(f"guard.reasons.{v.reason}"), " ".join(v.sentence.split())[:160], nearest(v.nearest))
        for text in report.narrative.values() for v in text.failed
    ]  # fmt: skip
    return (
        Grid("struck", words("tables.struck"), ("figure", "why", "sentence", "nearest"), tuple(rows))
        if rows
        else None
    )


def nearest(claim: Claim | None) -> str:
    """The fact that a failed figure may have meant."""
    return "" if claim is None else f"F{claim.id}: {show(claim)} ({claim.about[:80]})"


def sources(report: Report, words: Words) -> Grid:
    """The facts that figures are linked to."""
    numbers = list(dict.fromkeys(n for text in report.narrative.values() for n in cited(text)))
    by_id = {claim.id: claim for claim in report.facts.claims}
    rows = [
        (f"F{n}", show(by_id[n]), meaning(by_id[n], words), place(by_id[n], words)) for n in sorted(numbers)
    ]
    return Grid("sources", words("sections.sources"), ("fact", "value", "meaning", "where"), tuple(rows), ("value",),
                anchors=tuple(row[0] for row in rows))  # fmt: skip


def meaning(claim: Claim, words: Words) -> str:
    """What a fact is: counts and kinds of findings in the report's language, names as they stand in the data."""
    kind, _, rest = claim.about.partition(" ")
    groups = {"found": "found", "kind": "kinds"}
    if claim.how == "count" and kind in groups:
        return words(f"{groups[kind]}.{rest}")
    if kind.endswith(":") and kind != "setting:":
        return f"{words(f'found.{kind[:-1]}')}: {rest}"
    return words.known("about", claim.about)


def place(claim: Claim, words: Words) -> str:
    """Where a fact stands: file, row and column; and the computation, when it is none of theirs."""
    spots: list[str] = []
    for spot in claim.evidence[:2]:
        row = words("sources.row", row=spot.row) if spot.row else words("sources.whole")
        spots.append(f"{spot.file}, {row}, {spot.column}".rstrip(", "))
    if len(claim.evidence) > 2:
        spots.append("…")
    if claim.how:
        spots.insert(0, words("sources.computed", how=words(f"how.{claim.how}")))
    return "; ".join(spots)


def own_figures(report: Report, words: Words) -> Grid:
    """Durations of the stages, and the writer's timings."""
    clock = report.clock
    rows = [(words(f"run.{name}"), f"{value:.2f} s") for name, value in (
        ("ingest", clock.ingest), ("analysis", clock.analysis), ("writing", clock.writing),
        ("total", clock.total))]  # fmt: skip
    rows.append((words("run.peak"), size(clock.peak)))
    if report.written is not None:
        t, unknown = report.written.timings, words("run.unknown")
        rows += [
            (words("run.load"), unknown if t.load_s is None else f"{t.load_s * 1000:.2f} ms"),
            (words("run.first"), f"{t.first_token_s * 1000:.2f} ms"),
            (words("run.prompt"), f"{t.prompt_eval_s * 1000:.2f} ms"),
            (words("run.eval"), f"{t.eval_s * 1000:.2f} ms"),
            (words("run.whole"), f"{t.total_s * 1000:.2f} ms"),
            (words("run.tokens"), f"{t.tokens} ({words(f'run.counted.{t.counted}')})"),
            (words("run.speed"), unknown if t.tokens_per_s is None else f"{t.tokens_per_s:.2f} tokens/s"),
            (words("run.prompt_tokens"), unknown if t.prompt_tokens is None else str(t.prompt_tokens)),
            (words("run.given"), str(report.written.facts)),
        ]
    return Grid("run", words("sections.run"), ("quantity", "value"), tuple(rows), ("value",))


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _day(stamp: float) -> str:
    return datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d")
