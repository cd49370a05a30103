"""Plain checkpoints: the same bits in stock Transformers without trust, or a refusal that names the layers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

import secateur
from secateur.command import main
from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.config import ModelConfig
from secateur.pruning.errors import ModelError, StorageError
from secateur.pruning.export.stock import export_stock, refusals
from secateur.pruning.models.loading import load
from secateur.pruning.plan import LayerPlan, PruningPlan
from secateur.pruning.surgery import prune

MODELS = ("tiny_llama", "tiny_mistral", "tiny_qwen2")
Kept = list[tuple[float, float]]


def checkpoint(folder: Path, name: str, kept: Kept) -> Path:
    """A shipped model cut to shares (of KV groups, of channels) of each layer."""
    loaded = load(ModelConfig(path=f"bundled:{name}"), "cpu")
    layers = loaded.layout.layers
    shares = [*kept, *[(1.0, 1.0)] * len(layers)][: len(layers)]
    plans = tuple(
        LayerPlan(
            layer.kv_groups, layer.channels,
            tuple(range(layer.kv_groups))[: round(a * layer.kv_groups)],
            tuple(range(index % 2 if m < 1 else 0, layer.channels))[: round(m * layer.channels)],
        )
        for index, (layer, (a, m)) in enumerate(zip(layers, shares, strict=True))
    )  # fmt: skip
    plan = PruningPlan(plans, "test", 0, 0, 1, 1)
    return save_pruned(folder, prune(loaded.model, loaded.adapter, plan), loaded.tokenizer, plan, {})


STOCK = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
sys.modules["secateur"] = None
found = {}
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype="auto").eval()
    AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found[folder] = model(torch.arange(3, 27)[None]).logits
    print(type(model).__name__)
torch.save(found, sys.argv[1])
"""
ALIKE: Kept = [(0.5, 0.75)] * 20


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_in_stock_transformers_to_the_same_bits(name: str, tmp_path: Path) -> None:
    """Layers that are alike, whole layers gone, both, and nothing removed."""
    wanted: dict[str, torch.Tensor] = {}
    for number, kept in enumerate([ALIKE, [(1.0, 1.0), (0.0, 0.0)], [(0.0, 0.0), *ALIKE], []]):
        source = checkpoint(tmp_path / f"pruned{number}", name, kept)
        assert refusals(AutoConfig.from_pretrained(source)) == ()
        out = export_stock(source, tmp_path / f"plain{number}")
        with torch.no_grad():
            wanted[str(out)] = load_pruned(source)(torch.arange(3, 27)[None]).logits
        assert not (out / "modeling_pruned.py").exists()
        assert "trust_remote_code" not in (out / "README.md").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(tmp_path / "out.pt"), *wanted], capture_output=True, text=True,
        check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{name.removeprefix('tiny_').capitalize()}ForCausalLM"] * 4
    assert "MISSING" not in done.stderr
    found: Any = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(torch.equal(found[folder], logits) for folder, logits in wanted.items())


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ([(1.0, 0.5)], "intermediate_size differs by layer"),
        ([(0.5, 1.0)], "num_key_value_heads differs by layer"),
        ([(0.0, 1.0)], "layer 0 without attention"),
        ([(1.0, 1.0), (1.0, 0.0)], "layer 1 without mlp"),
    ],
)
def test_what_stock_layers_cannot_be_is_refused_before_any_work(
    kept: Kept, says: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "pruned", "tiny_llama", kept)
    with pytest.raises(ModelError, match=says) as caught:
        export_stock(source, tmp_path / "plain")
    assert "method.allocation=alike" in str(caught.value)
    assert not (tmp_path / "plain").exists()


def test_a_plan_that_was_made_alike_can_be_exported(tmp_path: Path) -> None:
    options: dict[str, Any] = {"method.allocation": "alike", "taylor.num_samples": 8}
    small = secateur.prune("tiny_qwen2", "taylor", ratio=0.25, device="cpu", **options)
    out = export_stock(small.save(tmp_path / "model"), tmp_path / "plain")
    config = AutoConfig.from_pretrained(out)
    assert {config.intermediate_size} == {len(layer.kept_channels) for layer in small.plan.layers}
    assert config.model_type == "qwen2"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path / "model", "tiny_llama", [(0.0, 0.0)])
    assert main(["export", f"checkpoint={source}", "to=stock"]) == 0
    assert (tmp_path / "model-stock" / "config.json").is_file()
    assert main(["export", f"checkpoint={source}", "to=stock"]) == 1
    assert "exists already" in capsys.readouterr().err
    for words, says in (
        (["to=stock"], "either checkpoint=DIR or run=ID"),
        ([f"checkpoint={source}", "to=gguff"], "give one of stock"),
        (["run=nothing", "to=stock"], "save_model=true"),
        (["chekpoint=x"], "not understood"),
    ):
        assert main(["export", *words]) == 1
        err = capsys.readouterr().err
        assert says in err
        assert len(err.splitlines()) == 1
    (source / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        export_stock(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(StorageError, match="exists already"):
        export_stock(source, tmp_path)
