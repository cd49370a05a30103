"""What is refused before the work: model folders of another kind, short or damaged evaluation texts, missing extras."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pruning.commands import (
    Place,
    call,
    child_environment,
    cut_short,
    documents,
    refused,
    spoiled,
    write_jsonl,
)
from tests.pruning.test_bad_files import change_config

WEIGHTS = "model.safetensors"


def nothing_was_computed(here: Place, runs: int = 1) -> None:
    """No capture, and no folder but those of the refused runs: the dense model was not measured either."""
    assert not (here.out / "cache" / "captures").exists()
    assert len([path for path in here.out.glob("*/") if path.name != "cache"]) == runs
    assert not list(here.out.glob("*/measured"))


# --- model folders


QUANTISED: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "int-quantized"},
    "quantization_config": {},
}


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("method", ["blockwise", "dense"])
def test_quantised_checkpoints(here: Place, kind: str, method: str) -> None:
    model = spoiled(here.model, here.folder / kind, change_config(quantization_config=QUANTISED[kind]))
    says = (
        f"model.path={model}",
        f"quantised ({kind} in config.json)",
        "Give the float16 or bfloat16 checkpoint",
    )
    message = refused(here, f"model.path={model}", f"method={method}", says=says)
    assert len(message.strip().splitlines()) == 1


def adapter(folder: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "meta-llama/Llama-3-8B", "r": 8}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def adapter_alone(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")


def broken_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize("change", [adapter, adapter_alone, broken_adapter])
def test_an_adapter_is_merged_first(here: Place, change: Callable[[Path], None]) -> None:
    model = spoiled(here.model, here.folder / "lora", change)
    message = refused(
        here, f"model.path={model}", says=("PEFT adapter", "Merge it first", "merge_and_unload()")
    )
    assert ("meta-llama/Llama-3-8B" in message) == (change is not broken_adapter)
    refused(
        here, f"checkpoint={model}", "device=cpu", f"out={here.out}", command="eval", says=("PEFT adapter",)
    )


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def test_pickled_weights_are_converted_first(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spoiled(here.model, here.folder / "bin", pickled)

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was opened")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", loaded)
        says = ("only pickled weights (pytorch_model.bin)", "not loaded", "save_pretrained(NEW)")
        refused(here, f"model.path={model}", says=says)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # the advice works

    new = here.folder / "new"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(new)
    AutoTokenizer.from_pretrained(model).save_pretrained(new)
    assert call("run", *here.arguments(f"model.path={new}", "method=magnitude")).code == 0


def test_weights_of_another_program(here: Place) -> None:
    model = spoiled(here.model, here.folder / "gguf", lambda f: (f / WEIGHTS).rename(f / "model-q4.gguf"))
    refused(here, f"model.path={model}", says=("no safetensors, only model-q4.gguf",))


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_are_not_left_out_in_silence(here: Place, layers: int) -> None:
    """A config.json of fewer layers than the weights have would give a smaller model, and numbers of another one."""
    model = spoiled(here.model, here.folder / "short", change_config(num_hidden_layers=layers))
    says = ("have no place in the model", f"model.layers.{layers}.", "copy the folder again")
    refused(here, f"model.path={model}", "method=magnitude", says=says)


def test_biases_are_not_left_out_in_silence(here: Place) -> None:
    from tests.pruning.commands import place

    there = place(here.folder / "biased", attention_bias=True)
    model = spoiled(there.model, there.folder / "plain", change_config(attention_bias=False))
    refused(there, f"model.path={model}", "method=magnitude", says=("have no place", "self_attn", "bias"))


# --- evaluation texts


@pytest.mark.parametrize("method", ["blockwise", "dense"])
def test_a_short_evaluation_text_is_found_before_the_work(here: Place, method: str) -> None:
    short = write_jsonl(here.folder / "short.jsonl", documents(2, words=10))
    says = ("short@64: the text has 22 tokens, fewer than one window of 64", "smaller window")
    words = ("eval=ppl", f"eval.ppl.text={short}", "eval.ppl.window=64", f"method={method}")
    refused(here, *words, says=says)
    nothing_was_computed(here)
    enough = (*here.perplexity(window=64), f"method={method}")
    refused(here, *enough, "eval.ppl.max_tokens=32", says=("has 32 tokens, fewer than one window of 64",))
    nothing_was_computed(here, runs=2)
    assert (
        call(
            "run",
            *here.arguments("eval=ppl", f"eval.ppl.text={short}", "eval.ppl.window=22", "method=magnitude"),
        ).code
        == 0
    )


def test_a_short_text_of_a_data_folder_is_found_before_the_work(here: Place) -> None:
    write_jsonl(here.folder / "data" / "text" / "wikitext2" / "test.jsonl", documents(2, words=10))
    words = ("eval=ppl", f"eval.data_dir={here.folder / 'data'}", "eval.ppl.protocols=[wikitext2@100]")
    refused(here, *words, says=("wikitext2@100: the text has", "fewer than one window of 100"))
    nothing_was_computed(here)


@pytest.mark.parametrize(
    "change",
    [lambda p: cut_short(p, 0.9), lambda p: p.write_bytes(b"\xff" * 99), lambda p: p.write_bytes(b"")],
)
def test_a_damaged_evaluation_text_is_found_before_the_work(
    here: Place, change: Callable[[Path], None]
) -> None:
    change(here.held_out)
    refused(here, *here.perplexity(), says=(str(here.held_out),))
    nothing_was_computed(here)


@pytest.mark.parametrize("rows", ['{"goal": "w4", "sol1": "w5"', '{"text": "w4 w5"}\n'])
def test_damaged_task_data_is_found_before_the_work(here: Place, rows: str) -> None:
    path = here.folder / "data" / "tasks" / "piqa" / "validation.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(rows, encoding="utf-8")
    words = (
        "eval=seven",
        "eval.tasks=[piqa]",
        f"eval.data_dir={here.folder / 'data'}",
        "eval.ppl.protocols=[]",
    )
    refused(here, *words, says=(str(path),))
    nothing_was_computed(here)


# --- extras


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (["run", "model=tiny_llama"], "torch", "model"),
        (["capture", "model=tiny_llama"], "torch", "model"),
        (["eval", "checkpoint=."], "transformers", "model"),
        (["methods"], "torch", "model"),
        (["models"], "torch", "model"),
        (["run", "model=tiny_llama"], "lm_eval", "model"),
        (["bench", "model=tiny_llama"], "torch", "model"),
    ],
)
def test_a_missing_extra_is_named(words: list[str], module: str, extra: str, tmp_path: Path) -> None:
    """As if it were not installed: the import system itself says so."""
    code = (
        "import sys; name = sys.argv[1]; sys.modules[name] = None\n"
        "import secateur.command; sys.exit(secateur.command.main(sys.argv[2:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, module, *words],
        capture_output=True, text=True, cwd=tmp_path, env=child_environment(), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f"secateur {words[0]}: {module} is not installed: pip install 'secateur[{extra}]'"
    )
    assert "Traceback" not in done.stderr


def test_extras_are_those_of_the_package() -> None:
    import tomllib

    from secateur.command import EXTRAS
    from tests.conftest import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(EXTRAS) <= set(extras)
    for extra, modules in EXTRAS.items():
        packages = " ".join(extras[extra]).replace("-", "_")
        assert all(module in packages for module in modules if module != "hydra_plugins"), extra
