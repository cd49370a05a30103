"""A stranger adds a family: the file of docs/adding_a_model.md, on the search path of an installed secateur."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import ArceeConfig, ArceeForCausalLM

from tests.families import tiny_of
from tests.pruning.commands import call, child_environment, place, tokenizer
from tests.pruning.conftest import BASE

LOADED = """
import sys
import torch
from transformers import AutoModelForCausalLM
sys.modules["secateur.pruning"] = None
stock = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
print(sum(p.numel() for p in stock.parameters()), stock(torch.arange(4, 24)[None]).logits.abs().sum().item() > 0)
"""


def test_the_docs_family_works_from_a_folder(root: Path, tmp_path: Path) -> None:
    text = (root / "docs" / "adding_a_model.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (name,) = re.findall(r"`(secateur_family_\w+\.py)`", text)
    here = place(tmp_path)
    model = tiny_of(ArceeConfig, ArceeForCausalLM, BASE)
    model.save_pretrained(tmp_path / "arcee")
    tokenizer().save_pretrained(tmp_path / "arcee")
    words = here.arguments("method=secateur", "budget.ratio=0.2", "save_model=true", *here.perplexity())
    words[1] = f"model.path={tmp_path / 'arcee'}"
    refused = call("run", *words)
    assert refused.code == 1
    assert "model_type='arcee' is not supported" in refused.err
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / name).write_text(code, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "families"), child_environment()["PYTHONPATH"]])
    command = [sys.executable, "-m", "secateur", "run", *words]
    done = subprocess.run(
        command,
        env=child_environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = here.out.glob("*secateur*/model")
    stock = subprocess.run(
        [sys.executable, "-c", LOADED, str(folder)],
        env=child_environment(HF_HOME=str(tmp_path / "hf")), capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert stock.returncode == 0, stock.stderr
    count, sane = stock.stdout.split()
    assert sane == "True"
    dense = sum(p.numel() for p in model.parameters())
    assert 0.79 * dense < int(count) < 0.81 * dense
    assert torch.isfinite(model(torch.arange(4, 24)[None]).logits).all()
