"""Every command in the README and the docs is run: for real where it can be, else as far as its plan or config."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FAR = ("llama3_8b", "taylor_sweep", "mistralai/", "/shared/", "/data/")
"""Words of commands that need a hub or a cluster: they are checked, not carried out."""


def commands(path: Path) -> list[str]:
    """The `secateur` lines of a file's bash blocks, continued lines joined."""
    blocks = re.findall(r"```(?:bash|sh|shell)\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.strip().startswith("secateur ")]


def secateur(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secateur", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)


def prepare(folder: Path) -> None:
    """The files that the README's own-model example names."""
    from secateur.pruning.world.bundle import data_dir, model_dir

    (folder / "MODEL_DIR").symlink_to(model_dir("tiny_llama"))
    rows = (data_dir() / "text" / "world" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    half = len(texts) // 2
    for name, part in (("train.jsonl", texts[:half]), ("held_out.jsonl", texts[half:])):
        (folder / name).write_text("\n".join(json.dumps({"text": text}) for text in part), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_readme_from_top_to_bottom(root: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    found = commands(root / "README.md")
    assert len(found) >= 15
    run_id = ""
    for line in found:
        line = line.replace("RUN_ID", run_id)
        words = shlex.split(line)[1:]
        if any(far in line for far in FAR):
            continue
        if words[:2] == ["run", "model=local"]:
            words.append("taylor.num_samples=16")
        done = secateur(tmp_path, *words)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if words[0] == "run" and not run_id:
            run_id = next(
                p.parent.name for p in sorted(tmp_path.glob("runs/tiny_llama-blockwise-*/record.json"))
            )
    assert (tmp_path / "report" / "report.html").is_file()
    assert list(tmp_path.glob("runs/MODEL_DIR-*/record.json"))


@pytest.mark.slow
def test_the_commands_of_the_methods_page(root: Path, tmp_path: Path) -> None:
    for line in commands(root / "docs/methods.md"):
        done = secateur(tmp_path, *shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/grids.md",
        "docs/evaluation.md",
        "docs/analysis.md",
        "docs/world.md",
        "docs/speed.md",
        "docs/methods.md",
    ],
)
def test_far_commands_are_well_formed(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs compose and validate, grids plan, without a model or a cluster."""
    from secateur import command

    monkeypatch.chdir(tmp_path)
    for line in commands(root / name):
        words = shlex.split(line)[1:]
        assert words[0] in command.COMMANDS, line
        if not any(far in line for far in FAR):
            continue
        if words[0] in ("run", "capture"):
            assert command.main(["run", *words[1:], "--cfg"]) == 0, line
        elif words[0] == "grid" and "grid=taylor_sweep" in words:
            kept = [w for w in words[1:] if not w.startswith(("out=", "eval.data_dir=", "--wait"))]
            assert command.main(["grid", *kept, "--dry-run"]) == 0, line


def test_every_link_of_the_docs_resolves(root: Path) -> None:
    for path in [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} points to {target}, which does not exist"
