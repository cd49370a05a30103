"""A report as values: sections of paragraphs, tables and figures, before any of it becomes Markdown or HTML."""

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd


@dataclass(frozen=True)
class Paragraph:
    """A piece of running text; `kind` decides how it is set off."""

    text: str
    kind: Literal["text", "note", "warning", "key"] = "text"


@dataclass(frozen=True)
class Table:
    """A table with raw values; `formats` of the columns come from `columns.yaml`.

    Attributes:
        name: File name of its CSV.
        show: Rows shown in the reports (the CSV has all).
        skip: Columns that only the CSV has.
        mark: Row positions that are emphasised.
    """

    name: str
    title: str
    frame: pd.DataFrame
    note: str = ""
    show: int = 60
    skip: tuple[str, ...] = ()
    mark: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A place for the plot of that name; left out when there is no such plot."""

    name: str
    title: str
    note: str = ""


Block = Paragraph | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading, what stands below it, and sub-sections."""

    name: str
    title: str
    blocks: tuple[Block, ...] = ()
    parts: "tuple[Section, ...]" = field(default=())


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    lang: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]
    footer: str

    def tables(self) -> list[Table]:
        """Every table, in order."""
        found: list[Table] = []

        def walk(section: Section) -> None:
            found.extend(block for block in section.blocks if isinstance(block, Table))
            for part in section.parts:
                walk(part)

        found.extend(block for block in self.lead if isinstance(block, Table))
        for section in self.sections:
            walk(section)
        return found
