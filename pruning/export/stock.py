"""A plain checkpoint for stock Transformers, without remote code: where all layers that are left are alike."""

from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoTokenizer

from secateur.pruning.errors import ModelError, StorageError
from secateur.pruning.files import new_directory, read_json, write_json
from secateur.pruning.models.loading import load_pruned
from secateur.pruning.models.modeling_pruned import get_geometry, set_geometry
from secateur.pruning.shards import save_weights
from secateur.pruning.tensors import disk_errors

OURS = (
    "auto_map",
    "secateur_layers",
    "secateur_blocks",
    "allow_global_per_layer_attribute_access",
    "per_layer_config",
)
"""Keys of a pruned checkpoint's config.json that stock classes do not know."""
KEPT = ("plan.json", "provenance.json")
PROBE, SEED = 16, 0
"""Tokens that both models are held against each other with."""


def refusals(config: Any) -> tuple[str, ...]:
    """Why a stock class cannot build what a pruned config describes, each in one sentence; none where it can."""
    geometry, layers = get_geometry(config), int(config.num_hidden_layers)
    found: list[str] = []
    for kind in ("attention", "mlp"):
        without = [index for index, values in geometry.items() if kind in values.get("skip", ())]
        if without:
            found.append(f"{_few(without)} without {kind}, and stock layers have both blocks")
    gained = [index for index, values in geometry.items() if values.get("bias")]
    if gained:
        found.append(f"{_few(gained)} with biases that were gained (flap), which the family has no place for")
    for key in _widths(geometry):
        sizes = {int(geometry.get(index, {}).get(key, getattr(config, key))) for index in range(layers)}
        if len(sizes) > 1:
            found.append(f"{key} differs by layer ({min(sizes)} to {max(sizes)}), and stock layers are alike")
    return tuple(found)


def stock_config(config: Any) -> Any:
    """The plain config of a pruned one whose layers are alike.

    Raises:
        ModelError: They are not.
    """
    reasons = refusals(config)
    if reasons:
        raise ModelError(
            f"to=stock cannot carry this model: {'; '.join(reasons)}. Prune with "
            f"method.allocation=alike, which keeps all layers alike"
        )
    geometry, plain = get_geometry(config), type(config)(**_stock_keys(config.to_dict()))
    set_geometry(plain, None)
    for key in _widths(geometry):
        setattr(plain, key, int(geometry[0][key]))
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    plain.architectures = [kind.__name__]
    return plain


def export_stock(checkpoint: Path, out: Path) -> Path:
    """Write a checkpoint that `AutoModelForCausalLM.from_pretrained(out)` loads without trust, to the same logits.

    Raises:
        ModelError: The checkpoint is not whole, its layers are not alike, or the stock class computes something else.
        StorageError: The folder exists already, or cannot be written.
    """
    if out.exists():
        raise StorageError(f"{out} exists already; delete it or choose another out=DIR")
    plain = stock_config(AutoConfig.from_pretrained(checkpoint))
    model = load_pruned(checkpoint)
    stock = _rebuilt(model, plain)
    with new_directory(out) as temporary:
        with disk_errors():
            save_weights(stock, temporary)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(temporary)
        for name in KEPT:
            if (checkpoint / name).is_file():
                write_json(temporary / name, read_json(checkpoint / name))
        (temporary / "README.md").write_text(_card(checkpoint), encoding="utf-8")
    return out


def _rebuilt(model: Any, plain: Any) -> Any:
    """The stock model with the pruned one's weights; refused unless both give the same logits, bit for bit."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(plain)]
    plain._attn_implementation = model.config._attn_implementation
    stock = kind(plain).to(model.dtype)
    try:
        stock.load_state_dict(model.state_dict())
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise ModelError(f"to=stock: the stock class has other tensors ({what})") from error
    stock.tie_weights()
    stock.generation_config = model.generation_config
    vocabulary = int(model.config.vocab_size)
    ids = torch.randint(vocabulary, (2, PROBE), generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        same = torch.equal(stock.eval()(ids).logits, model(ids).logits)
    if not same:
        raise ModelError(
            "to=stock: the stock class computes other logits from these weights; nothing is written"
        )
    return stock


def _widths(geometry: dict[int, dict[str, Any]]) -> list[str]:
    return sorted({key for values in geometry.values() for key in values if key not in ("skip", "bias")})


def _stock_keys(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in OURS and key != "bias"}


def _few(numbers: list[int]) -> str:
    text = ", ".join(map(str, sorted(numbers)[:4]))
    return f"layer{'s' * (len(numbers) > 1)} {text}" + (", ..." if len(numbers) > 4 else "")


def _card(checkpoint: Path) -> str:
    """The checkpoint's own card, with the way to load this folder in place of its."""
    path = checkpoint / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else "# A pruned model\n"
    head = text.partition("## Load it")[0]
    return (
        f"{head}## Load it\n\n```python\nfrom transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")\n```\n\n'
        f"A plain checkpoint: all layers are alike, so that no code but Transformers' own is needed.\n"
    )
