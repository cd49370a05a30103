"""The Python API refuses what it can't prune, and what is asked wrongly, on one line."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

import secateur
from secateur.pruning.errors import SecateurError
from secateur.pruning.world.bundle import model_dir
from tests.pruning.commands import save_model, tokenizer
from tests.test_api import SMALL, TEXTS, shipped


@pytest.fixture(scope="module")
def llama() -> Any:
    return shipped("tiny_llama")


def compiled(model: Any) -> Any:
    return torch.compile(model)


def adapted(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))


def emptied(model: Any) -> Any:
    return model.to("meta")


def quantised(model: Any) -> Any:
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return model


def headless(model: Any) -> Any:
    return AutoModel.from_pretrained(model_dir("tiny_llama"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (compiled, "torch.compile"), (adapted, "merge_and_unload"), (emptied, "`meta`"), (quantised, "quantised"),
        (headless, "head"), (nn.DataParallel, "model.module"), (lambda model: nn.Linear(2, 2), "cannot be pruned"),
        (lambda model: 17, "cannot be pruned"),
    ],
)  # fmt: skip
def test_what_is_no_plain_model_is_refused_on_one_line(spoil: Any, says: str, llama: Any) -> None:
    with pytest.raises(SecateurError) as caught:
        secateur.prune(spoil(copy.deepcopy(llama)), "magnitude")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"guard": {"max_layer_ration": 0.5}}, "guard.max_layer_ratio"),
        ({"guard.max_layer_ratio": 2}, "guard.max_layer_ratio"),
        ({"taylor": {"num_samples": 0}}, "taylor.num_samples"),
        ({"ratio": 1.5}, "budget.ratio"),
        ({"budget": {"ratio": 0.1}}, "budget.ratio is given"),
        ({"method": "taylr"}, "method=taylr"),
        ({"method": "taylor"}, "calibration=... must be given"),
        ({"method": "taylor", "calibration": "nowhere.jsonl"}, "calibration=nowhere.jsonl"),
        ({"method": "taylor", "calibration": [1, 2]}, "calibration"),
        ({"method": "taylor", "calibration": ["short"]}, "taylor.num_samples"),
        ({"method": "taylor", "calibration": TEXTS, "tokenizer": "/nowhere"}, "tokenizer=/nowhere"),
        ({"method": "taylor", "calibration": TEXTS, "tokenizer": 17}, "int is no tokenizer"),
        ({"device": "cuda:99"}, "device=cuda:99"),
        ({"eval": {"limit": 0}}, "eval.limit"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_key_on_one_line(options: dict[str, Any], says: str, llama: Any) -> None:
    with pytest.raises(SecateurError) as caught:
        secateur.prune(llama, **{"method": "magnitude", **options})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    small = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "net"))
    with pytest.raises(SecateurError, match="tokenizer"):
        secateur.prune(small, calibration=TEXTS, tokenizer=str(model_dir("tiny_llama")), **SMALL)
    small.config._name_or_path = ""
    with pytest.raises(SecateurError, match="must be given: in-memory brings none"):
        secateur.prune(small, calibration=TEXTS, **SMALL)
    text = [f"w{i} w{i + 1} w{i + 2} w9 w10" for i in range(4, 50)] * 4
    assert secateur.prune(small, calibration=text, tokenizer=tokenizer(), **SMALL).plan.removed > 0
