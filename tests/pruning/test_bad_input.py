"""Bad input: one clear message (value, what is allowed, what to do), exit code 1, nothing half-written."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.errors import StorageError
from pruning.plan import PruningPlan
from tests.pruning.commands import (
    Place,
    call,
    cut_short,
    documents,
    finish,
    leftovers,
    only_record,
    place,
    spoiled,
    start,
    write_jsonl,
)

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A model and texts, made once."""
    return place(tmp_path_factory.mktemp("bad_input"))


@pytest.fixture
def here(shared: Place, tmp_path: Path) -> Place:
    """The same model and texts, with an empty folder for runs."""
    return replace(shared, folder=tmp_path)


def refused(here: Place, *overrides: str, says: tuple[str, ...], command: str = "run") -> str:
    """Run, and check how it is refused: exit code, one message with these words, nothing half-written."""
    argv = here.arguments(*overrides) if command == "run" else list(overrides)
    outcome = call(command, *argv)
    message = outcome.err[outcome.err.index(f"secateur {command}: ") :]
    assert outcome.code == 1
    for word in says:
        assert word in message, message
    assert "Traceback" not in outcome.err
    assert len(message.splitlines()) <= 20
    assert leftovers(here.out) == []
    assert list(here.out.glob("*/record.json")) == []
    return message


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


# --- the command line


def test_unknown_key(here: Place) -> None:
    refused(here, "budgt.ratio=0.1", says=("budgt.ratio", "budget.ratio", "--cfg"))
    refused(here, "+budget.share=0.1", says=("budget.share", "unknown key", "--cfg"))


@pytest.mark.parametrize(
    ("ratio", "allowed"),
    [("1.0", "less than 1"), ("-0.1", "greater than or equal to 0"), ("nan", "less than 1")],
)
def test_ratio_outside_its_range(here: Place, ratio: str, allowed: str) -> None:
    refused(here, f"budget.ratio={ratio}", says=(f"budget.ratio={ratio}", allowed))


def test_wrong_type_for_a_number(here: Place) -> None:
    refused(
        here,
        "taylor.seq_len=long",
        "budget.ratio=much",
        says=("taylor.seq_len='long'", "integer", "budget.ratio='much'"),
    )


@pytest.mark.parametrize("group", ["model", "method", "calibration", "eval", "experiment"])
def test_unknown_option_of_a_group(here: Place, group: str) -> None:
    some = {
        "model": "local",
        "method": "blockwise",
        "calibration": "text_file",
        "eval": "ppl",
        "experiment": "study",
    }
    refused(here, f"{group}=nosuch", says=(f"{group}/nosuch", "Available options", some[group]))


def test_a_value_that_must_be_given() -> None:
    outcome = call("run", "model=local")
    assert outcome.code == 1
    assert "model.path=... must be given" in outcome.err


def test_out_is_not_a_folder(here: Place) -> None:
    refused(here, f"out={here.text}", says=(f"out={here.text}", "Choose a folder"))


def test_unknown_device(here: Place) -> None:
    refused(here, "device=abacus", says=("device=abacus", "device=auto or cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_no_such_device_here(here: Place) -> None:
    refused(here, "device=cuda", says=("device=cuda", "not available here", "device=auto or cpu"))


def test_the_process_prints_no_traceback(here: Place) -> None:
    """What the tests above see within this process holds for the command as users call it."""
    outcome = finish(start(["run", *here.arguments("guard.max_layer_ratio=0.01")]))
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "guard.max_layer_ratio=0.01" in outcome.err
    (failed,) = here.out.glob("*/failed.json")
    assert json.loads(failed.read_text())["error"]["type"] == "BudgetError"


# --- budget and method


def test_budget_that_the_guard_rails_make_impossible(here: Place) -> None:
    says = ("budget.ratio=0.5", "guard.min_kv_groups=4", "allows", "Lower the ratio or loosen the guard rail")
    refused(here, "guard.min_kv_groups=4", "guard.min_channels=40", "budget.ratio=0.5", says=says)


def test_an_impossible_budget_is_refused_before_anything_is_computed(here: Place) -> None:
    """Not after hours of calibration and of measuring the dense model."""
    refused(
        here, "guard.min_channels=40", "budget.ratio=0.5", *here.perplexity(), says=("guard.min_channels=40",)
    )
    assert not (here.out / "cache" / "captures").exists()
    assert len(list(here.out.glob("*/"))) == 1  # the run's own folder: no baseline


def test_layer_weights_of_wrong_length(here: Place) -> None:
    per_layer = ("method.allocation=per_layer", "method.layer_weights=[1,2]")
    refused(here, *per_layer, says=("method.layer_weights has 2 values", "4 layers"))
    refused(here, "method.allocation=per_layer", says=("method.layer_weights", "one per layer"))


# --- models


def test_missing_model_folder(here: Place) -> None:
    refused(here, "model.path=/no/such/model", says=("model.path=/no/such/model", "no such folder", "hub id"))
    refused(
        here,
        "model.path=nosuch",
        says=("model.path=nosuch", "Without internet", "model=local model.path=DIR"),
    )


@pytest.mark.parametrize("family", ["gpt2", "no_such_family"])
def test_unknown_family(here: Place, family: str) -> None:
    model = spoiled(here.model, here.folder / family, change_config(model_type=family))
    refused(here, f"model.path={model}", says=(family, "llama, mistral, qwen2, qwen3", "pruning/models/"))


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


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan


def test_nan_in_a_gradient(here: Place) -> None:
    model = spoiled(here.model, here.folder / "nan", change_weights(poison))
    says = ("calibration batch 0", "NaN or infinite", "capture.on_nonfinite=skip", "bfloat16 or float32")
    refused(here, f"model.path={model}", "capture.on_nonfinite=fail", says=says)
    refused(
        here, f"model.path={model}", says=("none of the first 2 calibration samples", "bfloat16 or float32")
    )


def test_nan_scores_are_not_ranked(here: Place) -> None:
    model = spoiled(here.model, here.folder / "nan", change_weights(poison))
    refused(
        here, f"model.path={model}", "method=magnitude", says=("layer 1, mlp", "NaN or infinite", "weights")
    )


# --- text and data


def test_calibration_text_too_short(here: Place) -> None:
    says = (
        "taylor.num_samples=4096 x taylor.seq_len=16",
        "65536 tokens",
        "1500 in 60 documents",
        "num_samples=93",
    )
    refused(here, "taylor.num_samples=4096", says=(*says, "Give more text or ask for less"))


def test_calibration_files(here: Place) -> None:
    refused(
        here, "calibration.path=/no/text.txt", says=("calibration.path=/no/text.txt", ".jsonl or .parquet")
    )
    refused(here, "calibration.field=body", says=("'body'", "it has text", "calibration.field=NAME"))
    bad = {
        "numbers.jsonl": b"1\n2\n",
        "half.jsonl": b'{"text": "a',
        "a.parquet": b"PAR1",
        "latin.txt": b"caf\xe9",
    }
    words = {
        "numbers.jsonl": "row 0 is 1",
        "half.jsonl": "JSONL",
        "a.parquet": "parquet",
        "latin.txt": "UTF-8",
    }
    for name, data in bad.items():
        path = here.folder / name
        path.write_bytes(data)
        refused(here, f"calibration.path={path}", says=(str(path), words[name]))


def test_missing_data_folder(here: Place) -> None:
    says = (
        "eval.data_dir=/no/data",
        "DIR/tasks/<task>/<split>.parquet",
        "secateur fetch",
        "eval.data_dir=bundled",
    )
    refused(here, "eval=seven", "eval.data_dir=/no/data", says=says)


def test_missing_task_split(here: Place) -> None:
    write_jsonl(here.folder / "data" / "tasks" / "piqa" / "train.jsonl", documents(1))
    says = (
        "eval.tasks=piqa",
        "tasks/piqa/validation.parquet",
        "its folder holds train.jsonl",
        "secateur fetch",
    )
    refused(here, "eval=seven", "eval.tasks=[piqa]", f"eval.data_dir={here.folder / 'data'}", says=says)


def test_unknown_task_and_protocol(here: Place) -> None:
    refused(here, "eval.tasks=[riddles]", says=("riddles", "hellaswag"))
    refused(here, "eval=ppl", "eval.ppl.protocols=[pile]", says=("'pile'", "TEXT@WINDOW"))


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
