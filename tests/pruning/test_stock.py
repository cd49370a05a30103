"""Checkpoints where secateur is unknown: stock Transformers reads, pickles and copies them to the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.plan import PruningPlan
from secateur.pruning.surgery import geometry_of, prune
from tests.pruning.conftest import VARIANTS, build
from tests.pruning.test_surgery import ids, plan_for, tokenizer

STOCK = """
import copy, io, json, sys
sys.modules["secateur"] = None  # secateur cannot be imported here
import torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM
found = {}
for probe in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    model = AutoModelForCausalLM.from_pretrained(probe.with_suffix(""), trust_remote_code=True)
    decoder = AutoModel.from_pretrained(probe.with_suffix(""), trust_remote_code=True)
    data = load_file(probe)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    with torch.no_grad():
        same = torch.equal(model(data["ids"]).logits, data["logits"])
        text = model.generate(data["ids"], max_new_tokens=8, do_sample=False, eos_token_id=None)
        states = decoder(data["ids"]).last_hidden_state
        bare = torch.equal(model.base_model(data["ids"]).last_hidden_state, states)
        pickled = torch.load(buffer, weights_only=False)(data["ids"]).logits
        copied = copy.deepcopy(model)(data["ids"]).logits
    shapes = [p.shape for p in AutoModel.from_config(decoder.config, trust_remote_code=True).parameters()]
    found[probe.stem] = [
        same,
        torch.equal(text, data["text"]),
        bare,
        torch.equal(pickled, data["logits"]),
        torch.equal(copied, data["logits"]),
        shapes == [p.shape for p in decoder.parameters()],
    ]
print(json.dumps(found))
"""


def test_checkpoints_give_the_same_bits(tmp_path: Path) -> None:
    """In memory, by `load_pruned`, and by stock Transformers in a process that cannot import secateur.

    There also without the head (`AutoModel`), built from the config alone, pickled, and copied.
    """
    kinds = ("uneven", "all-at-once", "no-attention-left", "no-mlp-left")
    for name in VARIANTS:
        for kind in kinds:
            loaded = build(name)
            plan = plan_for(loaded, kind)
            pruned = prune(loaded.model, loaded.adapter, plan)
            folder = save_pruned(tmp_path / f"{name}-{kind}", pruned, tokenizer(), plan, {"made": "here"})
            with torch.no_grad():
                logits = pruned(ids()).logits
                text = pruned.generate(ids(), max_new_tokens=8, do_sample=False, eos_token_id=None)
                again = load_pruned(folder)
                assert torch.equal(again(ids()).logits, logits)
            assert geometry_of(again) == geometry_of(pruned)
            assert not [p for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
            assert PruningPlan.load(folder / "plan.json") == plan
            save_file({"ids": ids(), "logits": logits, "text": text}, f"{folder}.safetensors")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(kinds) * len(VARIANTS)
    assert all(checks == [True] * 6 for checks in found.values()), found
