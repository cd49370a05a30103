"""docs/notebooks: every code cell runs, from top to bottom, and shows what the text says."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest


def cells(path: Path) -> list[str]:
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last expression is what it shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_first_hour(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    values = [shown(source, names) for source in cells(root / "docs/notebooks/first_hour.ipynb")]
    picture, widths, budget, both, perplexities, own, files = values
    assert "<svg" in picture._repr_html_()
    assert (widths["kept_channels"] <= widths["channels"]).all()
    assert widths["grad_norm"].notna().all()
    assert abs(float(budget.split()[0]) - 0.2) < 0.001
    assert {"dense", "value"} == set(both.columns)
    assert both.loc["world@128", "value"] > both.loc["world@128", "dense"]
    assert perplexities.is_monotonic_increasing
    assert perplexities["secateur"] < perplexities["random"]
    assert own > 1
    assert {"config.json", "model.safetensors", "README.md"} <= set(files)
