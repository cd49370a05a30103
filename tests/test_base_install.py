"""An install without the model stack plans, analyses and writes; progress is shown on terminals only."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = ("torch", "transformers", "accelerate", "datasets", "safetensors", "lm_eval", "tokenizers", "tqdm",
           "huggingface_hub", "openai", "torch_pruning", "submitit")  # fmt: skip
"""What the base dependencies do not bring."""

RUNNER = """
import importlib.abc, sys

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Wall())
import secateur.command
sys.exit(secateur.command.main(sys.argv[1:]))
"""


def base(root: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that can import the base dependencies only."""
    code = RUNNER.format(blocked=set(BLOCKED))
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False,
        timeout=280, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A table of results from elsewhere."""
    rows = [{"model": m, "method": x, "accuracy": a} for m, x, a in (
        ("one", "p", 0.5), ("one", "q", 0.6), ("two", "p", 0.4), ("two", "q", 0.7))]  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.json").write_text(json.dumps(rows))
    return tmp_path


def test_the_wall_holds(root: Path, tmp_path: Path) -> None:
    done = base(root, tmp_path, "run", "model=tiny_llama", "device=cpu")
    assert done.returncode != 0
    assert "No module named" in done.stderr or "pip install" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("insight", "dir=data", "out=insight"),
        ("grid", "grid=tiny_sweep", "--dry-run"),
        ("grid", "grid=demo", "--dry-run", "--json"),
        ("insight", "--help"), ("analyze", "--help"), ("run", "--help"), ("bench", "--help"), ("eval", "--help"),
        ("models", "--help"), ("tasks",), (),
    ],
)  # fmt: skip
def test_a_command_that_needs_no_model_runs_without_the_model_stack(
    words: tuple[str, ...], root: Path, results: Path
) -> None:
    done = base(root, results, *words)
    assert done.returncode == (0 if words else 2), done.stderr
    assert "Traceback" not in done.stderr
    if "out=insight" in words:
        assert list((results / "insight").glob("*.html"))


def test_a_grid_of_records_is_followed_and_analysed_without_the_model_stack(
    root: Path, tmp_path: Path
) -> None:
    """What a laptop does with runs that were copied from a cluster."""
    from secateur.slurm.grid import build, load_grid
    from secateur.slurm.plan import save_plan

    out = tmp_path / "runs"
    plan = build(load_grid("tiny_sweep"), out, {"model": ("tiny_llama",)})
    save_plan(plan)
    done = base(root, tmp_path, "status")
    assert done.returncode == 0, done.stderr
    assert "waiting" in done.stdout
    for task in plan.of("baseline", "run"):
        (out / task.id).mkdir()
        record = {
            "run_id": task.id, "kind": "dense" if task.kind == "baseline" else "pruned", "status": "failed",
            "error": {"stage": "load", "type": "ModelError", "message": "not here"}, "config": task.config, "card": {},
        }  # fmt: skip
        (out / task.id / "failed.json").write_text(json.dumps(record))
    done = base(root, tmp_path, "analyze", "runs=runs", "out=report")
    assert "Traceback" not in done.stderr, done.stderr
    assert "No module named" not in done.stderr
    assert (tmp_path / "report").is_dir(), done.stdout + done.stderr


def counted(terminal: bool, root: Path) -> str:
    """What a count of three writes to standard error, on a terminal or a pipe."""
    code = (
        "import time\nfrom secateur.pruning.progress import Bar\n"
        "with Bar('outer', 3) as outer, Bar('inner', 2) as inner, Bar('hidden', 2, show=False) as hidden:\n"
        "    for _ in range(3):\n        outer.advance(); inner.advance(); hidden.advance(); time.sleep(0.15)\n"
        "print('end')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm", "COLUMNS": "100"}
    words = [sys.executable, "-P", "-c", code]
    if not terminal:
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == "end\n"
        return done.stderr
    parent, child = pty.openpty()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=child, text=True, check=True, env=environment)
    os.close(child)
    assert done.stdout == "end\n"
    text = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(parent)
    return text.decode()


def test_progress_is_shown_on_a_terminal_and_nowhere_else(root: Path) -> None:
    assert counted(terminal=False, root=root) == ""
    shown = counted(terminal=True, root=root)
    assert "outer" in shown
    assert "inner" in shown
    assert "hidden" not in shown
    assert "3/3" in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown.rsplit("3/3", 1)[1], (
        "the cursor is shown again"
    )
