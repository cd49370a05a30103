"""Bad models, numbers and leftovers: one clear message, exit code 1, nothing half-written."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.pruning.errors import StorageError
from secateur.pruning.plan import PruningPlan
from tests.pruning.commands import (
    Place,
    call,
    cut_short,
    only_record,
    refused,
    spoiled,
)

WEIGHTS = "model.safetensors"


def change_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


# --- models


def test_missing_model_folder(here: Place) -> None:
    refused(here, "model.path=/no/such/model", says=("model.path=/no/such/model", "no such folder", "hub id"))
    refused(
        here,
        "model.path=nosuch",
        says=("model.path=nosuch", "Without internet", "model=local model.path=DIR"),
    )


@pytest.mark.parametrize(
    ("family", "why"),
    [("gpt2", ""), ("no_such_family", ""), ("mixtral", "mixture of experts"), ("phi3", "fuses")],
)
def test_unknown_family(here: Place, family: str, why: str) -> None:
    model = spoiled(here.model, here.folder / family, change_config(model_type=family))
    refused(
        here,
        f"model.path={model}",
        says=(family, why, "llama, mistral, olmo2, qwen2, qwen3", "pruning/models/"),
    )


def test_damaged_config(here: Place) -> None:
    model = spoiled(here.model, here.folder / "cut", lambda f: cut_short(f / "config.json"))
    refused(here, f"model.path={model}", says=(f"{model}/config.json", "damaged", "copy it again"))
    model = spoiled(here.model, here.folder / "none", lambda f: (f / "config.json").unlink())
    refused(here, f"model.path={model}", says=(f"{model}/config.json", "does not exist"))


def test_model_without_the_expected_modules(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with code of its own calls itself a Llama, and has no gate_proj."""
    code = (
        "from transformers import LlamaForCausalLM\n\n\n"
        "class OddForCausalLM(LlamaForCausalLM):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        for layer in self.model.layers:\n"
        "            del layer.mlp.gate_proj\n"
    )

    def change(folder: Path) -> None:
        (folder / "modeling_odd.py").write_text(code)
        change_config(auto_map={"AutoModelForCausalLM": "modeling_odd.OddForCausalLM"})(folder)

    modules = here.folder / "modules"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    monkeypatch.syspath_prepend(str(modules))
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    model = spoiled(here.model, here.folder / "odd", change)
    says = ("layer 0 lacks mlp.gate_proj", "family Llama")
    refused(here, f"model.path={model}", "model.trust_remote_code=true", says=says)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("missing", lambda f: (f / WEIGHTS).unlink(), "no file named model.safetensors"),
        ("truncated", lambda f: cut_short(f / WEIGHTS), "incomplete metadata"),
        ("empty", lambda f: cut_short(f / WEIGHTS, 0), "header too small"),
        ("no-tokenizer", lambda f: [p.unlink() for p in f.glob("tokenizer*")], "tokenizer"),
        ("other-config", change_config(intermediate_size=64), "other shapes"),
    ],
)
def test_model_folder_with_a_bad_file(
    here: Place, name: str, change: Callable[[Path], None], says: str
) -> None:
    model = spoiled(here.model, here.folder / name, change)
    refused(
        here, f"model.path={model}", says=(f"model.path={model}", says, "Check that the folder is complete")
    )


def test_a_missing_tensor_is_not_made_up(here: Place) -> None:
    """Transformers fills gaps with random numbers and a warning; results of that would be noise."""
    drop = change_weights(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    model = spoiled(here.model, here.folder / "gap", drop)
    refused(
        here, f"model.path={model}", says=(str(model), "model.layers.1.mlp.up_proj.weight", "copy it again")
    )


def test_tokenizer_of_another_model(here: Place) -> None:
    def shrink(folder: Path) -> None:
        tables = ("model.embed_tokens.weight", "lm_head.weight")
        change_weights(lambda t: t.update({name: t[name][:20].clone() for name in tables}))(folder)
        change_config(vocab_size=20)(folder)

    model = spoiled(here.model, here.folder / "small", shrink)
    refused(here, f"model.path={model}", says=("tokenizer", "20 rows", "another model's"))


# --- numbers


def huge(tensors: dict[str, torch.Tensor]) -> None:
    """Finite weights with which a product is not."""
    for name in ("gate_proj", "up_proj"):
        tensors[f"model.layers.1.mlp.{name}.weight"] *= 1e37


def test_nan_in_a_gradient(here: Place) -> None:
    model = spoiled(here.model, here.folder / "huge", change_weights(huge))
    says = ("calibration batch 0", "NaN or infinite", "capture.on_nonfinite=skip", "bfloat16 or float32")
    refused(here, f"model.path={model}", "capture.on_nonfinite=fail", says=says)
    refused(
        here, f"model.path={model}", says=("none of the first 2 calibration samples", "bfloat16 or float32")
    )


# --- what earlier runs left behind


def only(here: Place, pattern: str) -> Path:
    (path,) = here.out.glob(pattern)
    return path


@pytest.fixture
def done(here: Place) -> Place:
    """A finished run with its checkpoint."""
    assert call("run", *here.arguments("save_model=true")).code == 0
    return here


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("missing", lambda f: (f / WEIGHTS).unlink(), "no file named model.safetensors"),
        ("truncated", lambda f: cut_short(f / WEIGHTS), "incomplete metadata"),
        ("gap", change_weights(lambda t: t.pop("model.norm.weight")), "model.norm.weight"),
    ],
)
def test_checkpoint_with_a_bad_file(
    done: Place, name: str, change: Callable[[Path], None], says: str
) -> None:
    folder = spoiled(only(done, "*/model"), done.folder / name, change)
    there = replace(done, folder=done.folder / "again")
    argv = (f"checkpoint={folder}", *done.perplexity(), f"out={there.out}", "device=cpu")
    refused(there, *argv, command="eval", says=(str(folder), says, "opy it again"))


def test_no_such_checkpoint_or_run(here: Place) -> None:
    refused(here, "checkpoint=/no/model", command="eval", says=("checkpoint=/no/model", "save_model=true"))
    refused(here, "run=nosuch", f"out={here.out}", command="eval", says=("nosuch does not exist",))


@pytest.mark.parametrize("change", [cut_short, lambda p: p.write_text("{}"), lambda p: p.write_text("[]")])
def test_damaged_record_and_plan(done: Place, change: Callable[[Path], None]) -> None:
    name = only_record(done.out)["run_id"]
    plan, record = done.out / name / "plan.json", done.out / name / "record.json"
    change(plan)
    with pytest.raises(StorageError, match="Delete it and run"):
        PruningPlan.load(plan)
    outcome = call("eval", f"run={name}", *done.perplexity(), f"out={done.out}", "device=cpu")
    assert outcome.code == 1
    assert str(plan) in outcome.err
    change(record)
    outcome = call("run", *done.arguments("save_model=true"))
    assert outcome.code == 1
    assert str(record) in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("pattern", "change"),
    [
        ("captures/*/*/capture.safetensors", cut_short),
        ("captures/*/*/capture.safetensors", lambda p: p.unlink()),
        ("captures/*/*/capture.json", cut_short),
        ("captures/*/*/capture.json", lambda p: p.write_text("{}")),
        ("tokens/*", cut_short),
    ],
)
def test_cache_entry_cut_short(here: Place, pattern: str, change: Callable[[Path], None]) -> None:
    """It is named and the user told what to delete; doing that, the same command works."""
    assert call("capture", *here.arguments()).code == 0
    paths = list((here.out / "cache").glob(pattern))
    for path in paths:
        change(path)
    message = refused(here, says=("damaged", "elete", "run the same command again", str(here.out / "cache")))
    assert any(str(path.parent) in message for path in paths)
    for path in paths:
        path.unlink(missing_ok=True)
    assert pattern.startswith("captures") or call("run", *here.arguments()).code == 0
