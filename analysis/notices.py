"""What the command line must say about a result before anybody reads a number."""

from secateur.analysis.document import Paragraph
from secateur.analysis.findings import Findings
from secateur.analysis.story import warnings
from secateur.analysis.texts import Texts


def notices(findings: Findings, lang: str) -> list[str]:
    """Mixed protocols, rows set aside, failed and invalid runs: one line each."""
    blocks = warnings(findings.runs, Texts(lang))
    return [f"! {block.text}" for block in blocks if isinstance(block, Paragraph) and block.kind == "warning"]
