"""The house itself: light imports, live configs, whole tables, short files, one owner for each top-level name."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from secateur.command import COMMANDS, main
from secateur.eval.config import METRIC, TASKS, RunConfig
from secateur.eval.speed.config import SpeedConfig
from secateur.pruning.compose import CONF_DIR, compose, describe, options, register
from secateur.pruning.config import config_digest, estimator_names, identity, validate
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.models.adapter import PARTS, load_families
from tests.families import FAMILIES

PACKAGES = ("pruning", "eval", "analysis", "slurm", "conf")
LOCAL = {"model": "local model.path=somewhere", "calibration": "text_file calibration.path=text.txt"}


@pytest.mark.parametrize(
    "module",
    [
        "secateur.analysis.cli",
        "secateur.slurm.cli",
        "secateur.eval.record",
        "secateur.eval.config",
        "secateur.pruning.config",
        "secateur",
    ],
)
def test_light_modules_do_not_import_the_model_stack(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'transformers', 'lm_eval') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("group", ["model", "calibration", "method", "eval", "experiment"])
def test_every_config_composes_and_validates(group: str) -> None:
    register(RunConfig)
    for name in options(group):
        choice = f"{group}={name}"
        if name in ("local", "text_file"):
            choice = f"{group}={LOCAL[group]}"
        config = validate(RunConfig, compose("run", choice.split()))
        assert identity(config)
        assert describe(group, name), f"conf/{group}/{name}.yaml says nothing about itself"


def test_every_speed_benchmark_composes_and_validates() -> None:
    register(SpeedConfig)
    for name in options("bench"):
        config = validate(SpeedConfig, compose("bench", [f"bench={name}"]))
        assert config.bench.name == name
        assert config.budget.ratio == 0.0
        assert describe("bench", name), f"conf/bench/{name}.yaml says nothing about itself"


def test_every_yaml_of_conf_is_read_by_something() -> None:
    known = {"run.yaml", "bench.yaml"} | {
        f"{g}/{n}.yaml"
        for g in ("model", "calibration", "method", "eval", "experiment", "grid", "slurm", "bench", "insight")
        for n in options(g)
    }
    found = {str(p.relative_to(CONF_DIR)) for p in CONF_DIR.rglob("*.yaml")}
    assert found == known
    assert all(yaml.safe_load(p.read_text(encoding="utf-8")) for p in CONF_DIR.rglob("*.yaml"))


def test_estimators_are_called_what_their_files_are_called() -> None:
    assert sorted(ESTIMATORS) == estimator_names()


def test_families_are_called_what_their_files_are_called(root: Path) -> None:
    """And each has its tiny models, from which every contract test runs, and its line in the README."""
    files = {path.stem for path in (root / "pruning" / "models").glob("*.py")} - PARTS - {"__init__"}
    assert set(load_families()) == files == set(FAMILIES)
    readme = (root / "README.md").read_text(encoding="utf-8")
    for adapter in load_families().values():
        assert f"| {adapter.title} | `{adapter.model_type}` | {adapter.notes} |" in readme


def test_the_identity_forgets_places_and_labels() -> None:
    register(RunConfig)
    plain = validate(RunConfig, compose("run", []))
    for change in (
        "out=elsewhere",
        "device=cpu",
        "save_model=true",
        "eval.batch_size=3",
        "model.name=other",
        "capture.offload=true",
        "capture.segments=3",
    ):
        assert config_digest(validate(RunConfig, compose("run", [change]))) == config_digest(plain), change
    for change in (
        "seed=1",
        "budget.ratio=0.3",
        "taylor.seq_len=64",
        "method=blockwise",
        "eval.limit=5",
        "calibration.seed=2",
    ):
        assert config_digest(validate(RunConfig, compose("run", [change]))) != config_digest(plain), change


def test_every_command_exists_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0, name
        text = capsys.readouterr().out
        assert f"secateur {name}" in text, name
        assert "example" in text or name == "tasks", name


def test_unknown_command_lists_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune"]) == 2
    assert "commands: run" in capsys.readouterr().err


def test_models_methods_and_tasks_list_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in (
        ("models", ["llama", "qwen3", "mistral_7b", "tiny_llama"]),
        ("methods", ["blockwise", "taylor_gate", "fluctuation"]),
        ("tasks", ["hellaswag", "acc_norm", "wikitext2@2048/512-recount"]),
    ):
        assert main([command]) == 0
        text = capsys.readouterr().out
        assert all(word in text for word in words), command


def test_seven_tasks_have_their_metric() -> None:
    assert tuple(METRIC) == TASKS
    assert len(TASKS) == 7


NAMES = re.compile(
    r"[qkv]_proj|gate_proj|up_proj|input_layernorm|post_attention_layernorm|self_attn|layer\.mlp\b|embed_tokens"
    r"|base_model_prefix"
)
"""What Transformers calls the parts of a layer, in some family or other."""


def test_what_a_family_is_like_is_known_in_one_place(root: Path) -> None:
    """Nobody outside `pruning/models/` names a module of a decoder layer: everybody asks the adapter."""
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        if (root / "pruning" / "models") not in path.parents
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if NAMES.search(line)
    ]
    assert found == []


def test_files_stay_short(root: Path) -> None:
    """300 lines at most, unless the reason stands at the top of the file."""
    for package in (*PACKAGES, "secateur"):
        for path in (root / package).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= 300 or any("long because" in line for line in lines[:12]), (
                f"{path}: {len(lines)} lines"
            )


def test_top_level_names_have_one_owner() -> None:
    owners = packages_distributions()
    assert set(owners.get("secateur", ["secateur"])) == {"secateur"}
    for name in PACKAGES:
        assert "secateur" not in owners.get(name, []), f"{name} is ours outside of secateur"
