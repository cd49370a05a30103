"""Every command of docs/speed.md: the small ones are run from top to bottom, the large ones composed."""

import shlex
from pathlib import Path

import pytest

from secateur.command import main
from tests.test_docs import commands
from tests.test_docs import secateur as run

LARGE = "llama3_8b"


def lines(root: Path) -> list[str]:
    found = commands(root / "docs" / "speed.md")
    assert len(found) >= 12
    return found


def test_large_commands_compose(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    large = [line for line in lines(root) if LARGE in line and "RUN_ID" not in line]
    assert len(large) == 3
    for line in large:
        assert main([*shlex.split(line)[1:], "--cfg"]) == 0, line


@pytest.mark.slow
def test_small_commands_run_from_top_to_bottom(root: Path, tmp_path: Path) -> None:
    made = run(tmp_path, "run", "model=tiny_llama", "method=random", "eval=none", "save_model=true")
    assert made.returncode == 0, made.stderr
    (name,) = [path.parent.name for path in tmp_path.glob("runs/*random*/record.json")]
    for line in lines(root):
        words = shlex.split(line.replace("RUN_ID", name).replace("DIR", f"runs/{name}/model"))[1:]
        if LARGE in line and "RUN_ID" not in line:
            continue
        if LARGE in line:
            words = [word.replace(LARGE, "tiny_llama") for word in words] + [
                "bench=quick",
                "bench.fit_limit=2",
            ]
        done = run(tmp_path, *words)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for folder in ("speed", "speed-zh", "threads"):
        assert (tmp_path / folder / "report.html").is_file()
