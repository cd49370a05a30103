"""A model that the caller holds: what can be pruned is copied and held against its family, the rest is refused."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from secateur.eval.measure import content_identity
from secateur.pruning.config import ModelConfig
from secateur.pruning.errors import ConfigError, ModelError
from secateur.pruning.health import refuse_sick
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.folder import refuse_quantised
from secateur.pruning.models.layout import check_modules, read_layout
from secateur.pruning.models.loading import LoadedModel, load, resolve_device
from secateur.pruning.models.proof import prove

Given = nn.Module | str | Path | LoadedModel
"""A Transformers model, what `load` gave, a folder, a hub id, or a configured name."""


def opened(
    model: Given, tokenizer: Any, config: ModelConfig, device: str | None, *, to_cut: bool = True
) -> LoadedModel:
    """A model to work on: loaded from where the config says, or a copy of the given one in evaluation mode.

    Args:
        model: As the caller gave it; it stays as it is.
        tokenizer: A tokenizer, its folder, or None for the model's own.
        config: What a path or a name came to.
        device: Where to work; None leaves a given model where it is.
        to_cut: Whether it will be changed; what `load` gave is not copied only to be looked at.

    Raises:
        ModelError: It cannot be pruned: the message says why, and what to do.
        ConfigError: The tokenizer is no tokenizer.
    """
    if isinstance(model, str | Path):
        loaded = load(config, device or "auto")
        return (
            loaded if tokenizer is None else replace(loaded, tokenizer=tokenizer_for(loaded.model, tokenizer))
        )
    if isinstance(model, LoadedModel):
        words = model.tokenizer if tokenizer is None else tokenizer_for(model.model, tokenizer)
        return replace(model, tokenizer=words, model=_copied(model.model) if to_cut else model.model)
    check_given(model)
    net = _copied(model)
    place = next(net.parameters()).device if device in (None, "auto") else resolve_device(str(device))
    net.to(place)
    adapter = adapter_for(str(net.config.model_type))
    check_modules(net, adapter)
    layout = read_layout(net, adapter)
    refuse_sick(net)
    prove(net, adapter, layout)
    return LoadedModel(
        net, tokenizer_for(net, tokenizer), adapter, layout, content_identity(net), place, None
    )


def _copied(model: nn.Module) -> Any:
    """A copy in evaluation mode, without gradients that a training step has left."""
    try:
        net = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model: it cannot be copied ({first}); give its folder instead") from error
    for parameter in net.parameters():
        parameter.grad = None
    return net.eval()


def tokenizer_for(model: Any, tokenizer: Any) -> Any:
    """The tokenizer itself, read from its folder, or found where the model came from; None where there is none.

    Raises:
        ConfigError: It is no tokenizer, or its folder holds none.
    """
    place = getattr(model.config, "_name_or_path", "") if tokenizer is None else tokenizer
    if isinstance(place, str | Path):
        if tokenizer is None and not (place and Path(place).is_dir()):
            return None
        try:
            return AutoTokenizer.from_pretrained(str(place))
        except (OSError, ValueError, KeyError) as error:
            if tokenizer is None:
                return None
            raise ConfigError(
                f"tokenizer={place}: cannot be loaded ({str(error).splitlines()[0]})"
            ) from error
    if not (callable(tokenizer) and hasattr(tokenizer, "eos_token_id") and hasattr(tokenizer, "get_vocab")):
        raise ConfigError(
            f"tokenizer: {type(tokenizer).__name__} is no tokenizer of Transformers; give that or its folder"
        )
    return tokenizer


def check_given(model: Any) -> None:
    """Refuse what only looks like a plain Transformers model.

    Raises:
        ModelError: In one line: what it is, and what to give instead.
    """
    kind = type(model)
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        raise ModelError(
            "model: it is compiled (torch.compile), and layers change their shape; give the model as it was before"
        )
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            "model: it carries peft adapters; merge them (`model.merge_and_unload()`) and give the result"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"model: it is wrapped by {kind.__name__}; give `model.module`")
    if not isinstance(model, nn.Module) or not hasattr(getattr(model, "config", None), "model_type"):
        raise ModelError(
            f"model: a {kind.__name__} cannot be pruned; give a causal language model of Transformers or a folder"
        )
    settings: Any = model.config
    facts: Mapping[str, Any] = vars(settings)
    refuse_quantised(dict(facts), "model")
    if getattr(model, "hf_quantizer", None) is not None or getattr(model, "is_quantized", False):
        raise ModelError("model: it is quantised; prune the model in 16 or 32 bits and quantise the result")
    adapter_for(str(settings.model_type))
    tensors = list(model.named_parameters())
    meta = next((name for name, tensor in tensors if tensor.is_meta), None)
    if meta is not None:
        raise ModelError(
            f"model: {meta} is on `meta`, without values (or offloaded by accelerate); load the weights first"
        )
    places = {tensor.device for _, tensor in tensors}
    if len(places) > 1:
        raise ModelError(
            f"model: its weights lie on {len(places)} devices; move it to one, or give its folder"
        )
    if not tensors or not all(torch.is_floating_point(tensor) for _, tensor in tensors):
        raise ModelError(
            "model: it holds weights that are no floating-point numbers; quantised models cannot be pruned"
        )
    if model.get_output_embeddings() is None:  # type: ignore[operator]
        raise ModelError(f"model: {kind.__name__} has no language-model head; give a ...ForCausalLM")


def graft(target: nn.Module, source: nn.Module, training: bool) -> nn.Module:
    """Make `target` what `source` is, in one step: an object that others hold becomes the pruned model."""
    source.train(training)
    target.__class__ = source.__class__
    target.__dict__ = source.__dict__
    return target
