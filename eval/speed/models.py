"""Models in memory, made as a setting says and kept while memory is granted to them."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from secateur.eval.speed.config import SpeedConfig, load_key
from secateur.eval.speed.journal import Facts
from secateur.pruning import pipeline
from secateur.pruning.identity import model_folder
from secateur.pruning.models.layout import heads_of, read_layout
from secateur.pruning.models.loading import LoadedModel, load, outline, resolve_device
from secateur.pruning.models.modeling_pruned import pruned_class
from secateur.pruning.plan import PruningPlan
from secateur.pruning.surgery import prune

log = logging.getLogger(__name__)
SINGLE_STEPS = ("reduce-overhead", "max-autotune")
"""Modes of torch.compile that record CUDA graphs and must be told where a step begins."""


@dataclass(frozen=True)
class Ready:
    """A model that can be timed.

    Attributes:
        forward: What is called: the model, compiled or not.
        before_step: Called before every forward pass.
        facts: All that is known of it but its place in the sweep.
    """

    model: nn.Module
    forward: Callable[..., Any]
    before_step: Callable[[], None]
    device: torch.device
    facts: Facts

    @property
    def config(self) -> Any:
        """The Transformers config."""
        return self.model.config

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        model: Any = self.model
        return int(model.get_input_embeddings().weight.shape[0])


class Models:
    """At most `resident` loaded models, the one used longest ago goes first."""

    def __init__(self, resident: int) -> None:
        self._resident = resident
        self._kept: OrderedDict[str, Ready] = OrderedDict()

    def get(self, config: SpeedConfig) -> Ready:
        """The model of a setting, loaded now or before."""
        key = load_key(config)
        if key not in self._kept:
            while len(self._kept) >= self._resident:
                self._kept.popitem(last=False)
                _release()
            self._kept[key] = make(config)
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        """Let go of all models."""
        self._kept.clear()
        _release()


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make(config: SpeedConfig) -> Ready:
    """Load, cut and compile as a setting says."""
    start = time.perf_counter()
    loaded, plan = _cut(config)
    seconds = time.perf_counter() - start
    model = loaded.model.eval().requires_grad_(requires_grad=False)
    forward, before_step = _compiled(model, config.bench.compile)
    device = next(model.parameters()).device
    facts = facts_of(loaded, plan, seconds)
    log.info("loaded %s: %d parameters in %.2f s", config.model.name, facts.parameters, seconds)
    return Ready(model, forward, before_step, device, facts)


def _cut(config: SpeedConfig) -> tuple[LoadedModel, PruningPlan | None]:
    """The model of a setting, and the plan that it was cut to."""
    if config.bench.plan is not None:
        plan = PruningPlan.load(Path(config.bench.plan))
    elif config.budget.ratio > 0:
        pruned = pipeline.run(config)
        if config.bench.mmap:
            return pruned.loaded, pruned.plan
        plan = pruned.plan
        del pruned
    else:
        return open_model(config), _plan_of_checkpoint(config)
    loaded = open_model(config)
    if plan.removed:
        prune(loaded.model, loaded.adapter, plan)
    return loaded, plan


def _plan_of_checkpoint(config: SpeedConfig) -> PruningPlan | None:
    """The plan that a pruned checkpoint carries: which dense model it was cut from."""
    folder = model_folder(config.model)
    path = None if folder is None else folder / "plan.json"
    return PruningPlan.load(path) if path is not None and path.is_file() else None


def open_model(config: SpeedConfig) -> LoadedModel:
    """Load the dense model or checkpoint, its weight files mapped into memory or read whole (`bench.mmap`)."""
    if config.bench.mmap:
        return load(config.model, config.device)
    shell, device = outline(config.model), resolve_device(config.device)
    settings = config.model
    source = str(model_folder(settings) or settings.path)
    read: Any = AutoConfig.from_pretrained(
        source, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )
    kind: Any = AutoModelForCausalLM
    if getattr(read, "secateur_layers", None) is not None:
        base: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(read)]
        kind = pruned_class(base)
    model = kind.from_pretrained(
        source,
        config=read,
        revision=settings.revision,
        dtype=settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype),
        attn_implementation=shell.adapter.implementation or settings.attention,
        device_map=settings.device_map,
        use_safetensors=True,
        disable_mmap=True,
    )
    if settings.device_map is None:
        model.to(device)
    return replace(shell, model=model.eval(), device=device)


def _compiled(model: nn.Module, mode: str) -> tuple[Callable[..., Any], Callable[[], None]]:
    if mode == "off":
        return model, lambda: None
    compiled: Any = torch.compile(model, mode=mode)
    step: Any = torch.compiler.cudagraph_mark_step_begin if mode in SINGLE_STEPS else lambda: None
    return compiled, step


def facts_of(loaded: LoadedModel, plan: PruningPlan | None, seconds: float) -> Facts:
    """Count what a model costs, from its modules."""
    model: Any = loaded.model
    layout = read_layout(model, loaded.adapter)
    head = model.get_output_embeddings().weight
    layers = loaded.adapter.decoder_layers(model)
    decoder = [m for layer in layers for m in layer.modules() if isinstance(m, nn.Linear)]
    weights = list(model.parameters())
    return Facts(
        variant=0,
        fingerprint=loaded.fingerprint if plan is None else plan.fingerprint,
        parameters=layout.total_parameters,
        dense_parameters=layout.total_parameters if plan is None else plan.total_parameters,
        dtype=str(head.dtype).removeprefix("torch."),
        weight_bytes=sum(p.numel() * p.element_size() for p in weights),
        element_bytes=head.element_size(),
        linear=sum(m.weight.numel() for m in decoder),
        head=head.numel(),
        layers=tuple(_attention(model, loaded, index) for index in range(len(layout.layers))),
        widths=tuple(layer.channels for layer in layout.layers),
        load_s=seconds,
    )


def _attention(model: Any, loaded: LoadedModel, index: int) -> dict[str, int | None]:
    """Features of all query heads, of all keys and values, and the window of one layer."""
    layer = loaded.adapter.decoder_layers(model)[index]
    heads = heads_of(layer, loaded.adapter)
    if heads is None:
        return {"q": 0, "kv": 0, "window": None}
    return {
        "q": heads.groups * heads.queries * heads.width,
        "kv": 2 * heads.groups * heads.width,
        "window": loaded.adapter.window(model.config, index),
    }
