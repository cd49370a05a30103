"""A folder in, its tables out: several processes, bounded memory, every file accounted for."""

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from secateur.analysis.insight.plain import UnreadableError, plain
from secateur.analysis.insight.read_excel import read_excel
from secateur.analysis.insight.read_json import read_json, read_jsonl
from secateur.analysis.insight.read_markdown import read_markdown
from secateur.analysis.insight.readers import read_csv, read_parquet, read_sqlite
from secateur.analysis.insight.tables import Table
from secateur.analysis.insight.walk import RUN, Source, walk
from secateur.analysis.parallel import fork_map
from secateur.pruning.errors import DataError
from secateur.pruning.progress import Bar

READERS = {
    "CSV": read_csv, "JSON": read_json, "JSONL": read_jsonl, "parquet": read_parquet, "SQLite": read_sqlite,
    "Markdown": read_markdown, "Excel": read_excel,
}  # fmt: skip
BUDGET = 4_000_000
"""Cells that are kept of all files together; exact counts and extremes are of all cells."""
LEAST = 2_000
MANY = 8 << 20
"""From this number of bytes on, several processes read."""
GROUP = 256
DATE = re.compile(
    r"(?<!\d)(20\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])"
    r"(?:[-_T ]?([01]\d|2[0-3])[-_:]?([0-5]\d)[-_:]?([0-5]\d))?(?!\d)"
)


@dataclass(frozen=True)
class Ingested:
    """All that was read.

    Attributes:
        unreadable: Source name -> reason.
        states: Run record -> why it is no result (failed, another protocol, ...).
    """

    folder: Path
    sources: tuple[Source, ...]
    tables: tuple[Table, ...]
    unreadable: dict[str, str]
    states: dict[str, str]
    seconds: float

    def read(self) -> list[Source]:
        """The files that were read."""
        return [s for s in self.sources if not s.excluded and s.name not in self.unreadable]


def ingest(folder: Path, out: Path) -> Ingested:
    """Read a folder.

    Raises:
        DataError: There is no such folder, or no file in it.
    """
    began = time.perf_counter()
    if not folder.is_dir():
        raise DataError(f"dir={folder}: no such directory. Give a folder of result files.")
    sources = walk(folder, out)
    if not sources:
        raise DataError(f"dir={folder}: holds no file that is not hidden. Give a folder of result files.")
    wanted = [source for source in sources if not source.excluded]
    records = [source for source in wanted if source.type == RUN]
    files = sorted((s for s in wanted if s.type != RUN), key=lambda source: -source.size)
    tables, unreadable, states = _records(records)
    cells = max(LEAST, BUDGET // max(1, len(files)))
    least = 2 if sum(source.size for source in files) > MANY else len(files) + 1
    with Bar("reading", len(files)) as bar:
        for start in range(0, len(files), GROUP):
            group = files[start : start + GROUP]
            parts = fork_map(lambda place: _read(group[place], cells), len(group), least)  # noqa: B023  used at once
            for source, part in zip(group, parts, strict=True):
                if isinstance(part, str):
                    unreadable[source.name] = part
                else:
                    tables += part
            bar.advance(len(group))
    tables.sort(key=lambda table: (table.file, table.name))
    return Ingested(folder, tuple(sources), tuple(tables), unreadable, states, time.perf_counter() - began)


def _records(sources: list[Source]) -> tuple[list[Table], dict[str, str], dict[str, str]]:
    if not sources:
        return [], {}, {}
    from secateur.analysis.insight.read_records import read_records

    return read_records(sources)


def _read(source: Source, cells: int) -> list[Table] | str:
    """The tables of one file, or the reason why there is none."""
    try:
        date = file_date(source.name)
        with plain(source.path, source.type) as path:
            return [replace(table, time=date) for table in READERS[source.type](path, source.name, cells)]
    except UnreadableError as error:
        return str(error)
    except MemoryError:
        return "too large for the memory of this machine"
    except Exception as error:  # noqa: BLE001  a foreign file must never end the report: its reason is listed
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else 'no message'}"


def file_date(name: str) -> str | None:
    """The last date in a file's path, as ISO 8601; None without one."""
    found = list(DATE.finditer(name))
    if not found:
        return None
    year, month, day, hour, minute, second = found[-1].groups()
    return f"{year}-{month}-{day}" + (f"T{hour}:{minute}:{second}" if hour else "")
