"""The commands as users run them: in a process of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateur.analysis.words import parse
from secateur.pruning.errors import ConfigError

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "transformers", "lm_eval", "accelerate", "datasets")


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, "-m", "secateur.analysis", *words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["analyze", "show", "compare"])
def test_help_is_fast_and_has_examples(name: str, tmp_path: Path) -> None:
    before = os.times()
    done = command(name, "--help", cwd=tmp_path)
    after = os.times()
    assert done.returncode == 0
    assert f"secateur {name}" in done.stdout.split("example")[1]
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0


def test_analysis_never_imports_the_model_stack(run_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from secateur.analysis.cli import analyze, show\n"
        f"assert analyze([{f'runs={run_folder}'!r}, 'out=o', 'plots=no']) == 0\n"
        f"assert show([{str(run_folder / 'broken')!r}]) == 0\n"
        f"import secateur.analysis.plots.album; found = [name for name in {FORBIDDEN!r} if name in sys.modules]\n"
        "assert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from secateur.analysis.cli import analyze; analyze(['--help'])\n"
        "print(*(m for m in ('pandas', 'scipy', 'matplotlib', 'numpy') if m in sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""


def test_analyze_writes_reports_and_says_what_is_wrong(run_folder: Path, tmp_path: Path) -> None:
    done = command(f"runs={run_folder}", "out=reports", "lang=zh", "plots=no", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("! 1 次实验失败，1 次没有可用的 ACC")
    assert "reports/report.html" in done.stdout
    assert json.loads((tmp_path / "reports" / "findings.json").read_text(encoding="utf-8"))["lang"] == "zh"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["out=x"], 2, "give at least one runs=DIR or csv=FILE"),
        (["runs=absent"], 1, "runs=absent: no such directory"),
        (["csv=absent.csv"], 1, "csv=absent.csv: no such file"),
        (["runs=a", "lang=fr"], 2, "lang=fr: is not one of en, zh"),
        (["runs=a", "color=red"], 2, "color=red: unknown key color. Known: runs, csv"),
        (["runs=a", "--fast"], 2, "--fast: unknown flag"),
        (["runs="], 2, "runs= needs a value"),
        (["runs=a", "out=b", "out=c"], 2, "out was given 2 times: b, c"),
        (["show", "nothing"], 1, "nothing: neither a run folder nor a run id in runs"),
        (["compare", "one"], 2, "expected 2 run(s), got ['one']"),
        (["csv=a.csv", "mapping=m.yaml"], 2, "mapping=m.yaml: cannot be read"),
    ],
)
def test_errors_are_one_message_and_an_exit_code(
    words: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = command(*words, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_show_prints_the_run(run_folder: Path, tmp_path: Path) -> None:
    done = command("show", "alpha-taylor-64x256", f"runs={run_folder}", cwd=tmp_path)
    assert done.returncode == 0
    assert "model=alpha  method=taylor" in done.stdout
    assert "parameters 1,000,000 -> 800,000 (20.00% removed)" in done.stdout
    assert "28/64" in done.stdout
    failed = command("show", str(run_folder / "broken"), cwd=tmp_path)
    assert "evaluate: OutOfMemoryError: CUDA out of memory" in failed.stdout
    many = command("show", "alpha", f"runs={run_folder}", cwd=tmp_path)
    assert many.returncode == 1
    assert "alpha fits 19 runs" in many.stderr
    torn = command("show", "torn", f"runs={run_folder}", cwd=tmp_path)
    assert (torn.returncode, "is damaged" in torn.stderr) == (1, True)


def test_compare_prints_what_differs(run_folder: Path, tmp_path: Path) -> None:
    words = ("compare", "alpha-taylor-64x256", "alpha-blockwise-16x256", f"runs={run_folder}")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["method.name", "taylor", "blockwise"] in lines
    assert ["taylor.seq_len", "64", "16"] in lines
    assert ["plan", "the", "same"] in lines
    assert "paired on 1400 single answers" in done.stdout
    result = next(line for line in lines if line[:1] == ["acc_mean"])
    assert len(result) == 6
    assert float(result[3]) == pytest.approx(float(result[2]) - float(result[1]), abs=1.1e-4)


def test_words_are_taken_apart() -> None:
    words = parse(["runs=a", "runs=b=c", "--x"], ("runs",), ("--x",))
    assert (words.values, words.flags) == ({"runs": ["a", "b=c"]}, {"--x"})
    assert parse(["some/dir=1"], ("runs",), rest=1).rest == ["some/dir=1"]
    with pytest.raises(ConfigError, match="Give it once"):
        words.one("runs", "")


@pytest.mark.slow
def test_135_runs_with_plots_in_five_seconds(tmp_path: Path) -> None:
    from secateur.eval.record import write_record
    from tests.analysis.conftest import grid_records

    for record in grid_records(("a", "b", "c"), seeds=(0, 1, 2))[:139]:
        write_record(tmp_path / "runs" / record.run_id, record)
    seconds: list[float] = []
    for turn in range(3):  # other work on the machine makes some slower, none faster
        start = time.perf_counter()
        assert command(f"runs={tmp_path / 'runs'}", f"out=o{turn}", cwd=tmp_path).returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_a_second_report_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    from secateur.analysis.report import write_reports
    from tests.analysis.conftest import grid_records

    records = grid_records(("a", "b"))
    write_reports(records, tmp_path, plots=False)
    first = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")}
    (tmp_path / "tables" / "mine.csv").write_text("x\n1\n")
    written = write_reports([r for r in records if r.config["model"]["name"] == "a"], tmp_path, plots=False)
    second = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")}
    assert "tables/mine.csv" in second, "what the report did not write is not its to remove"
    gone = first - second
    assert gone, "no table was of the other model or of both"
    assert second - {"tables/mine.csv"} <= {p.relative_to(tmp_path).as_posix() for p in written}
