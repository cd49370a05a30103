"""Bad words and bad text: one clear message (value, what is allowed, what to do), nothing half-written."""

import json

import pytest
import torch

from tests.pruning.commands import (
    Place,
    call,
    documents,
    finish,
    refused,
    start,
    write_jsonl,
)

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


@pytest.mark.parametrize("method", ["blockwise", "dense"])
def test_a_window_beyond_the_context_is_refused_before_anything_is_computed(here: Place, method: str) -> None:
    says = ("a window of 129 tokens", "the model's context of 128", "eval.ppl.window=128")
    refused(here, f"method={method}", *here.perplexity(window=129), says=says)
    assert not (here.out / "cache" / "captures").exists()
    assert len(list(here.out.glob("*/"))) == 1  # the run's own folder: no baseline


def test_layer_weights_of_wrong_length(here: Place) -> None:
    per_layer = ("method.allocation=per_layer", "method.layer_weights=[1,2]")
    refused(here, *per_layer, says=("method.layer_weights has 2 values", "4 layers"))
    refused(here, "method.allocation=per_layer", says=("method.layer_weights", "one per layer"))


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
    refused(here, "calibration.path=/no/text.txt", says=("calibration.path=/no/text.txt", ".csv or .parquet"))
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
    refused(here, "eval.tasks=[riddles]", says=("riddles", "secateur tasks"))
    refused(here, "eval=ppl", "eval.ppl.protocols=[pile]", says=("'pile'", "TEXT@WINDOW"))
