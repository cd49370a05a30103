"""README.md of a checkpoint: what was cut, how it is loaded, and what the messages of a wrong load mean."""

from pathlib import Path
from typing import Any

from secateur.pruning.plan import PruningPlan

CARD = """---
library_name: transformers
tags: [pruned, secateur]
---
# A pruned {family} model

{removed:,} of {total:,} parameters are removed ({ratio:.1%}), by secateur {version}. Layers differ in width:
{widths}
`plan.json` holds the indices of what stays, `provenance.json` where and with what this was made{evaluation}.

## Load it

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", trust_remote_code=True)
```

It needs transformers 5.14 or later and no secateur; the code that is trusted is `modeling_pruned.py` in this folder.
With secateur, and without trusting the folder: `secateur.pruning.checkpoint.load_pruned("THIS_FOLDER")`.

## What Transformers may say

- *Reading global config value for per-layer attribute ...*: a warning without harm. `config.json` gives the dense width
  and each layer's own, and the layers are built with their own.
- *LOAD REPORT* with `MISMATCH` or `MISSING`, or *You set `ignore_mismatched_sizes` to `False`*: the folder was loaded
  without `trust_remote_code=True`. The stock class knows no layers of different width and no layers without a block.
  A model with `MISSING` tensors has random numbers in their place, even where no error is raised: do not use it, and
  do not set `ignore_mismatched_sizes=True`, which does the same. Load it as above.
"""


def write_card(folder: Path, family: str, plan: PruningPlan, provenance: dict[str, Any]) -> None:
    """Write the model card.

    Args:
        folder: The checkpoint.
        family: What the model is, for a person.
        plan: What was cut.
        provenance: Where it was made.
    """
    widths = [
        f"| {index} | {len(layer.kept_channels)} of {layer.channels} | "
        f"{len(layer.kept_kv_groups)} of {layer.kv_groups} |"
        for index, layer in enumerate(plan.layers)
    ]
    version = provenance.get("secateur") or "(unknown version)"
    text = CARD.format(
        family=family, removed=plan.removed, total=plan.total_parameters, ratio=plan.ratio,
        version=version,
        widths="\n".join(["", "| layer | MLP channels | KV groups |", "|---|---|---|", *widths, ""]),
        evaluation=", and the data it was measured on" if "evaluation" in provenance else "",
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
