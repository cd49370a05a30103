"""The model card of a checkpoint is true: its snippet loads the model, and it names what a wrong load says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.surgery import prune
from tests.pruning.conftest import build
from tests.pruning.test_surgery import ids, plan_for, tokenizer


def stock(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import secateur."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=folder, check=False, timeout=200,
        env=environment | {"HF_HOME": str(folder / "hf")},
    )  # fmt: skip


def test_the_card_says_what_was_cut_and_its_snippet_loads_it(tmp_path: Path) -> None:
    loaded = build("llama")
    plan = plan_for(loaded, "uneven")
    pruned = prune(loaded.model, loaded.adapter, plan)
    folder = save_pruned(tmp_path / "model", pruned, tokenizer(), plan, {"secateur": "9.9"})
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "A pruned Llama model" in card
    assert "secateur 9.9" in card
    rows = re.findall(r"^\| (\d+) \| (\d+) of (\d+) \| (\d+) of (\d+) \|$", card, flags=re.MULTILINE)
    assert [tuple(map(int, row)) for row in rows] == [
        (i, len(layer.kept_channels), layer.channels, len(layer.kept_kv_groups), layer.kv_groups)
        for i, layer in enumerate(plan.layers)
    ]
    (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    with torch.no_grad():
        wanted = load_pruned(folder)(ids()).logits
    run = f"model.eval()(torch.tensor({ids().tolist()})).logits.double().sum()"
    check = f"\nimport torch\nprint(float({run}))"
    done = stock(snippet.replace("THIS_FOLDER", str(folder)) + check, tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == float(wanted.double().sum())


def test_card_and_readme_name_what_a_load_without_trust_says(root: Path, tmp_path: Path) -> None:
    """Transformers' own words, from a real load of a real checkpoint: the docs break when they change."""
    loaded = build("llama")
    plan = plan_for(loaded, "all-at-once")
    pruned = prune(loaded.model, loaded.adapter, plan)
    folder = save_pruned(tmp_path / "model", pruned, tokenizer(), plan, {})
    code = f"from transformers import AutoModelForCausalLM as A; A.from_pretrained({str(folder)!r})"
    done = stock(code, tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode != 0, "a pruned model is not loaded as a stock one"
    card = (folder / "README.md").read_text(encoding="utf-8")
    readme = (root / "README.md").read_text(encoding="utf-8")
    for words in ("LOAD REPORT", "MISMATCH", "MISSING", "global config value for per-layer attribute"):
        assert words in said
        assert words in card
        assert words in readme
    assert "ignore_mismatched_sizes" in said
    assert "ignore_mismatched_sizes" in card
    for text in (card, readme):
        assert "trust_remote_code=True" in text
