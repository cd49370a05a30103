"""Pruned models on disk: safetensors, a config that stock Transformers reads, plan and provenance. No pickle."""

from pathlib import Path
from typing import Any

from pruning import modeling_pruned
from pruning.card import write_card
from pruning.errors import StorageError
from pruning.files import new_directory, write_json
from pruning.models.loading import load_pruned
from pruning.plan import PruningPlan
from pruning.tensors import disk_errors

CODE = "modeling_pruned.py"
__all__ = ["load_pruned", "save_pruned"]


def save_pruned(
    folder: Path, model: Any, tokenizer: Any, plan: PruningPlan, provenance: dict[str, Any]
) -> Path:
    """Write a checkpoint that `load_pruned` and stock `AutoModelForCausalLM` read (trust_remote_code=True).

    The folder appears by one rename, so it is whole or absent.

    Raises:
        StorageError: The folder exists already, or cannot be written.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists already; delete it or choose another out=DIR")
    base = _stock_class(model)
    with new_directory(folder) as temporary:
        model.config.auto_map = {"AutoModelForCausalLM": f"{Path(CODE).stem}.Pruned{base.__name__}"}
        model.config.architectures = [f"Pruned{base.__name__}"]
        with disk_errors():
            model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        (temporary / CODE).write_text(_code(base), encoding="utf-8")
        plan.save(temporary / "plan.json")
        write_json(temporary / "provenance.json", provenance)
        write_card(temporary, base.__name__.removesuffix("ForCausalLM"), plan, provenance)
    return folder


def _stock_class(model: Any) -> type[Any]:
    """The Transformers class that a model is, or that its pruned class derives from."""
    return next(kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))


def _code(base: type[Any]) -> str:
    """Our modelling file, ending in the one class that this checkpoint needs."""
    source = Path(modeling_pruned.__file__).read_text(encoding="utf-8")
    name = base.__name__
    return (
        f"{source}\n\nfrom transformers import {name}  # noqa: E402\n\nPruned{name} = pruned_class({name})\n"
    )
