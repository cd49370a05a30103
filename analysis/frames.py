"""Groups and pairs as table frames, and p-values in words: what several chapters of a report share."""

# pandas' own annotations reject what its documentation allows
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import pandas as pd

from secateur.analysis.describe import Group
from secateur.analysis.paired import Paired


def groups_frame(levels: tuple[Group, ...], factor: str) -> pd.DataFrame:
    """Group means as a table; the first column carries the factor's name. One run has no standard deviation."""
    frame = pd.DataFrame(
        [vars(level) for level in levels], columns=["level", "mean", "sd", "minimum", "maximum", "n"]
    )
    frame["sd"] = frame["sd"].where(frame["n"] > 1)
    return frame.rename(columns={"level": factor})


def pairs_frame(pairs: tuple[Paired, ...]) -> pd.DataFrame:
    """Paired comparisons as a table."""
    frame = pd.DataFrame([vars(pair) for pair in pairs]).rename(columns={"mean": "difference"})
    return frame[
        [
            "left",
            "right",
            "n",
            "difference",
            "low",
            "high",
            "effect",
            "wins",
            "ties",
            "losses",
            "t_p",
            "t_holm",
            "w_p",
            "w_holm",
        ]
    ]


def p_text(p: float) -> str:
    """A p-value in a sentence."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}"
