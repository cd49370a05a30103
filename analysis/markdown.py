"""A document as Markdown that reads well as plain text, too."""

from secateur.analysis.document import Block, Document, Figure, Paragraph, Section, Table
from secateur.analysis.formats import is_text, show
from secateur.analysis.texts import Texts

SIGNS = {"text": "", "note": "> ", "warning": "> **!** ", "key": "- "}


def to_markdown(document: Document, plots: set[str], texts: Texts) -> str:
    """The document as Markdown; plots are linked from `plots/`, tables from `tables/`."""
    lines = [f"# {document.title}", ""]
    lines += _blocks(document.lead, plots, texts)
    for section in document.sections:
        lines += _section(section, 2, plots, texts)
    lines += ["---", "", document.footer, ""]
    return "\n".join(lines)


def _section(section: Section, depth: int, plots: set[str], texts: Texts) -> list[str]:
    lines = [f"{'#' * depth} {section.title}", "", *_blocks(section.blocks, plots, texts)]
    for part in section.parts:
        lines += _section(part, depth + 1, plots, texts)
    return lines


def _blocks(blocks: tuple[Block, ...], plots: set[str], texts: Texts) -> list[str]:
    lines: list[str] = []
    for index, block in enumerate(blocks):
        if isinstance(block, Paragraph):
            lines.append(SIGNS[block.kind] + block.text)
            following = blocks[index + 1] if index + 1 < len(blocks) else None
            if not (block.kind == "key" and isinstance(following, Paragraph) and following.kind == "key"):
                lines.append("")
        elif isinstance(block, Figure):
            if block.name in plots:
                lines += [
                    f"![{block.title}](plots/{block.name}.png)",
                    "",
                    f"*{block.title}* · {block.note}".rstrip(),
                    "",
                ]
        else:
            lines += _table(block, texts)
    return lines


def _table(table: Table, texts: Texts) -> list[str]:
    names = [str(name) for name in table.frame.columns if name not in table.skip]
    rows = table.frame[names].head(table.show)
    head = [texts.get(f"columns.{name}", name) for name in names]
    lines = [f"**{table.title}** ([CSV](tables/{table.name}.csv))", ""]
    lines += [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(":--" if is_text(name) else "--:" for name in names) + "|",
    ]
    for position, row in enumerate(rows.itertuples(index=False, name=None)):
        cells = [show(name, value).replace("|", "\\|") for name, value in zip(names, row, strict=True)]
        if position in table.mark:
            cells = [f"**{cell}**" if cell else cell for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    if len(table.frame) > table.show:
        lines += ["", texts("table.more", shown=table.show, total=len(table.frame), name=table.name)]
    return [*lines, "", *([table.note, ""] if table.note else [])]
