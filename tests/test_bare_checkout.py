"""Nothing needs an installed secateur: children are this Python with `-m` or `-c`, and inherit the checkout's place."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("pruning", "eval", "analysis", "slurm", "tests")
CALLS = {"run", "Popen", "check_output", "check_call", "call"}


def commands(root: Path) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every list that starts with `sys.executable`, and every command line that is given to `subprocess` as a list."""
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                given = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in CALLS
                for item in [*node.args[:1]] if given and isinstance(node, ast.Call) else [node]:
                    if isinstance(item, ast.List) and item.elts and (given or is_python(item.elts[0])):
                        yield f"{file.relative_to(root)}:{item.lineno}", item.elts


def is_python(word: ast.expr) -> bool:
    return isinstance(word, ast.Attribute) and ast.unparse(word) == "sys.executable"


def test_children_are_started_by_module(root: Path) -> None:
    found = list(commands(root))
    pythons = [(place, words) for place, words in found if is_python(words[0])]
    assert len(pythons) > 20
    for place, words in found:
        first = words[0].value if isinstance(words[0], ast.Constant) else ""
        assert first not in ("secateur", "python", "python3", "pytest", "ruff"), (
            f"{place}: {first} may not be here"
        )
    for place, words in pythons:
        options = [word.value for word in words[1:4] if isinstance(word, ast.Constant)]
        loose = any(isinstance(word, ast.Starred) for word in words[1:])
        script = len(words) > 1 and not isinstance(words[1], ast.Constant)
        assert loose or script or {"-m", "-c"} & set(options), f"{place}: neither -m nor -c"


@pytest.mark.parametrize(
    "words",
    [
        ("secateur", "methods"),
        ("secateur.pruning.bench_capture", "shape=tiny", "side=taylor", "samples=4", "length=8"),
    ],
)
def test_commands_and_benches_run_by_pythonpath_alone(
    words: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    environment = {
        "PYTHONPATH": str(root),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "taylor" in done.stdout


def test_children_of_the_tests_find_this_checkout(root: Path, tmp_path: Path) -> None:
    code = "import secateur.eval.record, os; print(os.path.dirname(os.path.dirname(secateur.__file__)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == root
