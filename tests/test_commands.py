"""What a new user meets first: commands without words, folders that git ignores, packages that build quietly."""

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from secateur.command import main

WORKING = ("run", "capture", "bench", "grid", "analyze", "insight", "eval", "show", "compare", "logs")
"""Commands that would compute or have to be told what to look at."""


@pytest.mark.parametrize("name", WORKING)
def test_a_command_alone_prints_its_usage(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 2
    assert f"secateur {name}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "nothing is started and nothing is written"


@pytest.mark.parametrize("words", [["-v"], ["--multirun"], ["-m", "-v"]])
def test_flags_alone_say_nothing_of_what_to_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *words]) == 2
    assert not list(tmp_path.iterdir())


def test_the_config_alone_is_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--cfg"]) == 0
    assert "taylor:" in capsys.readouterr().out


def tracked(root: Path, *where: str) -> list[str]:
    """Files of the project: what git knows, new ones included."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *where]
    return subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()


def named_folders(root: Path) -> set[str]:
    """Every folder that a command of the README or the docs writes: `out=`, `data_dir=` and defaults."""
    found = {"runs", "multirun"}
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        for line in re.findall(r"^secateur .*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            found |= set(re.findall(r"\b(?:out|data_dir|model_dir)=([a-z][\w-]*)", line))
    return found


def test_git_ignores_what_the_commands_of_the_docs_write(root: Path) -> None:
    folders = named_folders(root)
    assert {"report", "report-zh", "insight", "insight-zh", "speed", "threads"} <= folders
    for folder in folders:
        words = ["git", "check-ignore", "--quiet", f"{folder}/report.html"]
        assert subprocess.run(words, cwd=root, check=False).returncode == 0, f"{folder}/ is not ignored"


def test_git_ignores_no_file_of_the_project(root: Path) -> None:
    """A pattern such as `insight/` without its slash would hide `analysis/insight/` from git."""
    ignored = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert not ignored
    for folder in ("analysis/insight", "analysis/speed", "eval/speed", "docs/report"):
        words = ["git", "check-ignore", "--quiet", f"{folder}/new.py"]
        assert subprocess.run(words, cwd=root, check=False).returncode == 1, f"{folder} is hidden from git"


def packages(root: Path) -> set[str]:
    """The packages that the build finds, by its own finder."""
    import tomllib

    setuptools = pytest.importorskip("setuptools")
    find = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    finder = setuptools.find_namespace_packages if find["namespaces"] else setuptools.find_packages
    return set(finder(str(root), include=find["include"], exclude=find["exclude"]))


def test_every_folder_with_files_is_listed_as_a_package(root: Path) -> None:
    """Setuptools warns of each folder of data files that is not, 27 times."""
    found = packages(root)
    files = [Path(name) for name in tracked(root, "pruning", "eval", "analysis", "slurm", "conf")]
    wanted = {".".join(("secateur", *path.parent.parts)) for path in files} | {"secateur"}
    assert wanted <= found
    assert not [name for name in found if "__pycache__" in name]


@pytest.mark.slow
@pytest.mark.network
def test_the_wheel_builds_without_a_warning_and_holds_all_files(root: Path, tmp_path: Path) -> None:
    import shutil
    import sys

    copy = tmp_path / "copy"
    for name in tracked(root):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy / name, follow_symlinks=False)
    words = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", str(tmp_path), str(copy)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    assert "_Warning" not in done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    assert {
        f"secateur/{name}" for name in tracked(root, "pruning", "eval", "analysis", "slurm", "conf")
    } <= held
