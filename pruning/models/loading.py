"""From a model config to a model in memory, with its tokenizer, adapter and fingerprint."""

import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from secateur.pruning.config import ModelConfig
from secateur.pruning.errors import ConfigError, ModelError
from secateur.pruning.identity import model_fingerprint, model_folder
from secateur.pruning.models.adapter import ModelAdapter, adapter_for
from secateur.pruning.models.folder import check_folder, refuse_quantised
from secateur.pruning.models.layout import Layout, check_modules, read_layout
from secateur.pruning.models.modeling_pruned import pruned_class
from secateur.pruning.models.proof import prove

log = logging.getLogger(__name__)
FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError,
            SafetensorError, StrictDataclassError, TypeError, ValueError)  # fmt: skip
"""What Transformers and the libraries below it raise about a folder that is not as it should be."""


MOST_LAYERS, MOST_PARAMETERS = 10_000, 10**13
"""A config.json that asks for more is damaged."""


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
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None or os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
            return torch.device("cpu")
        rank = os.environ.get("LOCAL_RANK")  # one device per process of `accelerate launch`
        return found if rank is None else torch.device(found.type, int(rank))
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
        ModelError: Unknown family, missing folder, damaged or incomplete weights, modules that the family lacks, or a
            model that computes otherwise than its family's adapter says.
    """
    place = resolve_device(device)
    loaded = _open(config, lambda settings, source, folder: _weights(config, source, folder, settings))
    model: Any = loaded.model
    if config.device_map is None:
        model.to(place)
    model.eval()
    prove(model, loaded.adapter, loaded.layout)
    log.info(
        "loaded %s: %s, %d layers, %d parameters, %s",
        config.path,
        loaded.adapter.title,
        len(loaded.layout.layers),
        loaded.layout.total_parameters,
        model.dtype,
    )
    return replace(loaded, device=place)


def outline(config: ModelConfig) -> LoadedModel:
    """The model without its weights (device `meta`): all that can be checked before the costly part.

    Raises:
        ModelError: As for `load`, damaged weights apart.
    """

    def empty(settings: Any, source: str, folder: Path | None) -> Any:
        with torch.device("meta"):
            if folder is not None and getattr(settings, "secateur_layers", None) is not None:
                base: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
                return pruned_class(base)(settings)
            return AutoModelForCausalLM.from_config(settings, trust_remote_code=config.trust_remote_code)

    return _open(config, empty)


def _open(config: ModelConfig, build: Callable[[Any, str, Path | None], Any]) -> LoadedModel:
    """Config, family, model (by `build`), tokenizer and layout, in this order; what fails is said in one message."""
    if not sys.stderr.isatty():
        disable_progress_bar()
    folder = model_folder(config)
    fingerprint = model_fingerprint(config)
    source = str(folder) if folder is not None else config.path
    place = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    with _explained(config, folder):
        if folder is not None:  # our families are named before Transformers complains about unknown ones
            adapter_for(check_folder(folder, f"model.path={config.path}"))
        settings = AutoConfig.from_pretrained(source, **place)
        refuse_quantised(vars(settings), f"model.path={config.path}")
        adapter = adapter_for(str(settings.model_type))
        if settings.num_hidden_layers > MOST_LAYERS:  # building them would never end
            raise ValueError(f"num_hidden_layers={settings.num_hidden_layers} in its config.json")
        model = build(settings, source, folder)
        tokenizer = AutoTokenizer.from_pretrained(source, **place)
        check_modules(model, adapter)
        layout = read_layout(model, adapter)
        if layout.total_parameters > MOST_PARAMETERS:
            raise ValueError(f"{layout.total_parameters} parameters by its config.json")
    revision = getattr(settings, "_commit_hash", None)
    return LoadedModel(model, tokenizer, adapter, layout, fingerprint, torch.device("meta"), revision)


@contextmanager
def _explained(config: ModelConfig, folder: Path | None) -> Generator[None]:
    """Turn whatever Transformers raises about a model into one message that says what to do."""
    try:
        yield
    except FAILURES as error:
        first = _first(error)
        advice = "Check that the folder is complete: config.json, *.safetensors and the tokenizer's files"
        if folder is None:
            advice = (
                "Without internet give model=local model.path=DIR; `secateur fetch` prepares such a folder"
            )
        elif isinstance(error, torch.OutOfMemoryError):
            advice = "Choose a smaller model.dtype, device=cpu or model.device_map=auto"
        elif "ignore_mismatched_sizes" in first:
            first = "its tensors have other shapes than its config.json says"
        raise ModelError(
            f"model.path={config.path}: cannot be loaded: {first.rstrip('.')}. {advice}"
        ) from error


def _first(error: Exception) -> str:
    """The first line of an error, with the next one where it only announces that."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text if len(text) <= 300 else f"{text[:300]}..."


def _weights(config: ModelConfig, source: str, folder: Path | None, settings: Any) -> Any:
    dtype = config.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    if folder is not None and getattr(settings, "secateur_layers", None) is not None:
        return load_pruned(folder, dtype=dtype, attention=config.attention)
    family = adapter_for(str(settings.model_type))
    return _whole(
        source,
        AutoModelForCausalLM.from_pretrained(
            source,
            config=settings,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=family.implementation or config.attention,
            device_map=config.device_map,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        ),
    )


def _whole(source: Path | str, loaded: Any) -> Any:
    """The model, when its files held every tensor of it and of its layers no other.

    Transformers fills gaps with random numbers, and leaves out what it has no place for.
    """
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{source}: {len(missing)} tensors of the model are not in its files, the first is {missing[0]}. "
            "The folder is incomplete or its config.json is another model's: copy it again"
        )
    extra = sorted(key for key in report["unexpected_keys"] if ".layers." in key and "rotary_emb" not in key)
    if extra:
        raise ModelError(
            f"{source}: {len(extra)} tensors in its files have no place in the model that its config.json describes, "
            f"the first is {extra[0]}. The config.json is another model's: copy the folder again"
        )
    return model


def load_pruned(folder: Path | str, dtype: Any = "auto", attention: str = "sdpa") -> Any:
    """Load a pruned checkpoint with secateur's own code, never with code from the folder.

    Raises:
        ModelError: The folder lacks a file or a tensor, or a file is cut short.
    """
    folder = Path(folder)
    try:
        settings = AutoConfig.from_pretrained(folder)
        base: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
        loaded = pruned_class(base).from_pretrained(
            folder,
            config=settings,
            dtype=dtype,
            attn_implementation=adapter_for(str(settings.model_type)).implementation or attention,
            use_safetensors=True,
            output_loading_info=True,
        )
    except FAILURES as error:
        raise ModelError(
            f"{folder}: not a whole checkpoint ({_first(error)}). Copy it again, or delete it and "
            "run again what wrote it"
        ) from error
    return _whole(folder, loaded).eval()
