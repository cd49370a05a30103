"""One import name: what the build makes, what the wheel can do alone, and a folder whose packages have our names."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

import secateur

NAMES = ("pruning", "eval", "analysis", "slurm", "conf")
"""Folders of the repository; a user may have packages of these names."""
CUT = ("model=tiny_llama", "method=magnitude", "eval=none", "device=cpu")


def test_bare_names_are_links_into_the_one_package(root: Path) -> None:
    for name in NAMES:
        link = root / "secateur" / name
        assert link.is_symlink(), link
        assert link.readlink() == Path("..", name), "relative, so that a checkout can be anywhere"


def test_the_version_stands_in_one_place(root: Path) -> None:
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    assert not [word for word in project["classifiers"] if word.startswith("Private ::")]
    done = subprocess.run(
        [sys.executable, "-m", "secateur", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"secateur {secateur.__version__}\n"


def test_importing_the_package_is_quick_and_brings_no_model_stack(root: Path) -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import secateur; spent = time.perf_counter() - start\n"
        "assert not {'torch', 'transformers', 'numpy', 'pandas', 'pydantic', 'hydra'} & set(sys.modules)\n"
        "import logging; assert not logging.getLogger().handlers\nprint(spent)"
    )
    spent = min(
        float(
            subprocess.run(
                [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    )
    assert spent < 0.1


def test_bare_imports_are_refused_by_the_linter(root: Path, tmp_path: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("no ruff beside this Python")
    for name in NAMES:
        probe = f"import {name}.thing\nfrom {name} import other\n"
        words = [str(ruff), "check", "--select", "TID251", "--config", str(root / "pyproject.toml"), "-"]
        done = subprocess.run(words, input=probe, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout.count(f"import secateur.{name}") == 2, done.stdout


@pytest.fixture
def shadow(tmp_path: Path, root: Path) -> tuple[Path, dict[str, str]]:
    """A research folder with packages of all our names, and PYTHONPATH as cluster scripts write it."""
    for name in NAMES:
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text(
            f"raise RuntimeError('the user\\'s own {name}')\n"
        )
    (tmp_path / "work" / "eval.py").write_text("raise RuntimeError('the user\\'s eval.py')\n")
    path = os.pathsep.join([str(tmp_path / "work"), str(root)])
    return tmp_path / "work", {
        **os.environ,
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def told(place: tuple[Path, dict[str, str]], *words: str, **more: str) -> str:
    """What a command prints in the research folder; it must end well."""
    folder, environment = place
    done = subprocess.run(
        [sys.executable, "-m", "secateur", *words], cwd=folder, env=environment | more, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert "the user's" not in done.stderr
    return done.stdout


def test_a_run_in_a_folder_with_packages_of_our_names(shadow: tuple[Path, dict[str, str]]) -> None:
    told(shadow, "run", *CUT, "save_model=true")
    told(shadow, "analyze", "runs=runs", "out=report", "plots=no")
    told(shadow, "insight", "dir=runs", "out=insight")
    assert (shadow[0] / "report" / "report.html").is_file()


GRID = "models: [{model: tiny_llama}]\noverrides: {eval: none, device: cpu}\naxes: {method: [magnitude, random]}\n"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_command_in_a_folder_with_packages_of_our_names(shadow: tuple[Path, dict[str, str]]) -> None:
    told(shadow, "run", *CUT, "save_model=true")
    run = next(path.parent.name for path in (shadow[0] / "runs").glob("*magnitude*/record.json"))
    few = ("eval.tasks=[piqa]", "eval.limit=4", "eval.ppl.max_tokens=600")
    told(shadow, "eval", f"run={run}", "eval.data_dir=bundled", *few)
    told(shadow, "bench", "model=tiny_llama", "bench=quick", "bench.repetitions=1", "device=cpu")
    told(shadow, "show", run)
    for name in ("models", "methods", "tasks"):
        told(shadow, name)
    told(shadow, "capture", "model=tiny_llama", "taylor.num_samples=4", "taylor.seq_len=16", "device=cpu")
    (shadow[0] / "grid.yaml").write_text(GRID)
    told(shadow, "grid", "grid=grid.yaml", "launcher=local", "workers=1", "out=grid")
    assert "done" in told(shadow, "status", "out=grid")
    told(shadow, "logs", next(iter(made(shadow[0] / "grid"))), "out=grid")


def made(out: Path) -> list[str]:
    """The finished pruned runs of a folder."""
    return [p.parent.name for p in out.glob("*/record.json") if json.loads(p.read_text())["kind"] == "pruned"]


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.timeout(1500)
def test_a_slurm_grid_in_a_folder_with_packages_of_our_names(
    shadow: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    from secateur.slurm.dev.cluster import down, missing_programs, up
    from secateur.slurm.dev.configs import Shape

    if missing_programs():
        assert os.environ.get("REQUIRE_SLURM") != "1", f"REQUIRE_SLURM=1, but {missing_programs()} is missing"
        pytest.skip("no Slurm here")
    base = Path("/tmp") / f"sl{os.getpid()}"
    variables = up(base, Shape(nodes=1, gpus=2, cpus=8))
    try:
        (shadow[0] / "grid.yaml").write_text(GRID)
        words = ("grid=grid.yaml", "launcher=slurm", "slurm=trial", "out=grid", "--wait")
        told(shadow, "grid", *words, **variables)
        deadline = time.monotonic() + 60
        while len(made(shadow[0] / "grid")) < 2 and time.monotonic() < deadline:
            time.sleep(1)
        assert len(made(shadow[0] / "grid")) == 2
        assert "done" in told(shadow, "status", "out=grid", **variables)
    finally:
        down(base)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist and wheel as `python -m build` makes them of a clean copy."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("built")
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(
        words, cwd=root, check=True, capture_output=True, text=True
    ).stdout.splitlines():
        if not (root / name).exists():
            continue
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, folder / "copy" / name, follow_symlinks=False)
    words = [sys.executable, "-m", "build", "-o", str(folder / "dist"), str(folder / "copy")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stdout + done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "_Warning" not in done.stdout + done.stderr
    return folder / "dist"


@pytest.mark.slow
@pytest.mark.network
def test_sdist_and_wheel_are_whole_and_pass_the_index_check(built: Path, root: Path) -> None:
    words = ["git", "ls-files", "--", *NAMES]
    files = subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    wanted = {f"secateur/{name}" for name in files if (root / name).exists()}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    assert wanted <= held
    assert {name.split("/")[0] for name in held} == {"secateur", f"secateur-{secateur.__version__}.dist-info"}
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert wanted <= names
    assert not {name.split("/")[0] for name in names} & {*NAMES, "tests"}
    pytest.importorskip("twine")
    checked = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1200)
def test_the_wheel_alone_plans_analyses_and_writes(built: Path, root: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    place = tmp_path / "env"
    venv.create(place, with_pip=True)
    packages = next(place.glob("lib/python*/site-packages"))
    python, wheel = str(place / "bin" / "python"), str(next(built.glob("*.whl")))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    before = {path.name for path in packages.iterdir()}
    subprocess.run([*pip, "--no-deps", wheel], check=True, env=environment)
    assert {path.name for path in packages.iterdir()} - before == {
        "secateur",
        f"secateur-{secateur.__version__}.dist-info",
    }
    subprocess.run([*pip, "-c", str(root / "constraints.txt"), wheel], check=True, env=environment)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    record = {"run_id": "one", "kind": "dense", "status": "failed", "config": {}, "card": {},
              "error": {"stage": "load", "type": "ModelError", "message": "not here"}}  # fmt: skip
    (tmp_path / "runs" / "one" / "failed.json").write_text(json.dumps(record))
    rows = [
        {"model": m, "method": x, "accuracy": a}
        for m, x, a in (("a", "p", 0.5), ("a", "q", 0.6), ("b", "p", 0.4))
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.json").write_text(json.dumps(rows))
    for words, code in (
        (["--version"], 0), (["grid", "grid=tiny_sweep", "--dry-run"], 0), (["insight", "dir=data", "out=insight"], 0),
        (["analyze", "runs=runs", "out=report"], 0), (["status"], 1),
    ):  # fmt: skip
        done = subprocess.run(
            [str(place / "bin" / "secateur"), *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
    assert (tmp_path / "report").is_dir()
