"""From a model config to a model in memory, with its tokenizer, adapter and fingerprint."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pruning.config import ModelConfig
from pruning.errors import ConfigError, ModelError
from pruning.identity import model_fingerprint, model_folder
from pruning.modeling_pruned import pruned_class
from pruning.models.adapter import ModelAdapter, adapter_for
from pruning.models.layout import Layout, check_modules, read_layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that later steps need to know of it."""

    model: nn.Module
    tokenizer: Any
    adapter: ModelAdapter
    layout: Layout
    fingerprint: str
    device: torch.device
    revision: str | None


def resolve_device(name: str) -> torch.device:
    """Turn `auto` into the accelerator of this machine, or the CPU.

    Raises:
        ConfigError: The device does not exist here.
    """
    if name == "auto":
        return (
            torch.accelerator.current_accelerator() or torch.device("cpu")
            if torch.accelerator.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={name}: not available here ({str(error).splitlines()[0]}); use device=auto or cpu"
        ) from error
    return device


def load(config: ModelConfig, device: str = "auto") -> LoadedModel:
    """Load a model for evaluation (no dropout), from a folder, the hub, or the shipped ones.

    Raises:
        ModelError: Unknown family, missing folder, damaged weights, or modules that the family lacks.
    """
    folder = model_folder(config)
    fingerprint = model_fingerprint(config)
    source = str(folder) if folder is not None else config.path
    place = resolve_device(device)
    try:
        settings = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        adapter = adapter_for(str(settings.model_type))
        model = _weights(config, source, folder, settings)
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model.path={config.path}: cannot be loaded: {first}") from error
    except ValueError as error:
        raise ModelError(f"model.path={config.path}: {str(error).strip().splitlines()[0]}") from error
    check_modules(model, adapter)
    if config.device_map is None:
        model.to(place)
    model.eval()
    layout = read_layout(model, adapter)
    log.info(
        "loaded %s: %s, %d layers, %d parameters, %s",
        config.path,
        adapter.title,
        len(layout.layers),
        layout.total_parameters,
        model.dtype,
    )
    return LoadedModel(
        model, tokenizer, adapter, layout, fingerprint, place, getattr(settings, "_commit_hash", None)
    )


def _weights(config: ModelConfig, source: str, folder: Path | None, settings: Any) -> Any:
    dtype = config.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    if folder is not None and getattr(settings, "secateur_layers", None) is not None:
        return load_pruned(folder, dtype=dtype, attention=config.attention)
    return AutoModelForCausalLM.from_pretrained(
        source,
        config=settings,
        revision=config.revision,
        dtype=dtype,
        attn_implementation=config.attention,
        device_map=config.device_map,
        trust_remote_code=config.trust_remote_code,
        use_safetensors=True,
    )


def load_pruned(folder: Path | str, dtype: Any = "auto", attention: str = "sdpa") -> Any:
    """Load a pruned checkpoint with secateur's own code, never with code from the folder.

    Raises:
        ModelError: The folder lacks a file, or a file is cut short.
    """
    folder = Path(folder)
    try:
        settings = AutoConfig.from_pretrained(folder)
        base = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
        model = pruned_class(base).from_pretrained(
            folder, config=settings, dtype=dtype, attn_implementation=attention, use_safetensors=True
        )
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({str(error).splitlines()[0]})") from error
    return model.eval()
