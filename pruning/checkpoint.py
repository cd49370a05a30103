"""Pruned models on disk: safetensors, a config that stock Transformers reads, plan and provenance. No pickle."""

import shutil
from pathlib import Path
from typing import Any

from transformers import MODEL_MAPPING

from secateur.pruning.card import write_card
from secateur.pruning.errors import StorageError
from secateur.pruning.files import new_directory, write_json
from secateur.pruning.models import modeling_pruned
from secateur.pruning.models.loading import load_pruned
from secateur.pruning.models.modeling_pruned import PREFIX
from secateur.pruning.plan import PruningPlan
from secateur.pruning.shards import save_weights
from secateur.pruning.tensors import disk_errors

CODE = "modeling_pruned.py"
__all__ = ["load_pruned", "save_pruned"]


def save_pruned(
    folder: Path, model: Any, tokenizer: Any, plan: PruningPlan, provenance: dict[str, Any]
) -> Path:
    """Write a checkpoint that `load_pruned` and stock `AutoModelForCausalLM` read (trust_remote_code=True).

    `AutoModel` gives the pruned decoder without its head.

    The folder appears by one rename, so it is whole or absent.

    Raises:
        StorageError: The folder exists already, or cannot be written.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists already; delete it or choose another out=DIR")
    stock = _stock_class(model).__name__
    kind = f"{PREFIX}{stock}"
    decoder: Any = MODEL_MAPPING[type(model.config)]
    base = f"{PREFIX}{decoder.__name__}"
    place = Path(CODE).stem
    with new_directory(folder) as temporary:
        model.config.auto_map = {"AutoModelForCausalLM": f"{place}.{kind}", "AutoModel": f"{place}.{base}"}
        model.config.architectures = [kind]
        with disk_errors():
            save_weights(model, temporary)
        tokenizer.save_pretrained(temporary)
        shutil.copyfile(modeling_pruned.__file__, temporary / CODE)
        plan.save(temporary / "plan.json")
        write_json(temporary / "provenance.json", provenance)
        write_card(temporary, stock.removesuffix("ForCausalLM"), plan, provenance)
    return folder


def _stock_class(model: Any) -> type[Any]:
    """The Transformers class that a model is, or that its pruned class derives from."""
    return next(kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
