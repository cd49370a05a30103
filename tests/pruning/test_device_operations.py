"""What the pass asks of a GPU beside the model's own work: operations, bytes and waits, counted on meta tensors.

The code that runs is that of a GPU; only the work of each operation is left out. The shapes are Llama-3-8B's.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from secateur.pruning.capture import activations, fusible, gradients
from secateur.pruning.capture.borders import Borders
from secateur.pruning.capture.fold import PlainFold
from secateur.pruning.capture.fused_fold import FusedFold
from secateur.pruning.capture.passes import CalibrationPass
from secateur.pruning.capture.segments import Segment
from secateur.pruning.capture.site_sums import PlainSums
from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel

SAMPLES, TOKENS, LAYERS = 4, 128, 32
WHOLE, TOP = Segment(0, LAYERS, LAYERS), Segment(24, LAYERS, LAYERS)
FLOOR = 12
"""Bytes per weight of one walk in bfloat16: gradient 2, weight 2, float32 accumulator read and written 8."""
NO_WORK = {
    "view", "_unsafe_view", "t", "transpose", "permute", "slice", "select", "expand", "unsqueeze", "squeeze", "detach",
    "alias", "as_strided", "unbind", "split_with_sizes", "empty", "empty_like", "new_empty", "_local_scalar_dense",
}  # fmt: skip
OWNERS = {gradients.__file__: "fold", activations.__file__: "sites"}
"""Whose hooks and questions at the end of a batch they are."""


def frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


class Counted(TorchDispatchMode):
    """Counts what is asked for by the hooks and by the end of a batch; answers what is asked of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, Counter[str]] = {"fold": Counter(), "sites": Counter()}
        self.bytes: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.is_meta]
        stack = [(frame.f_code.co_filename, frame.f_code.co_name) for frame in frames()]
        owner = next((OWNERS[file] for file, _ in stack if file in OWNERS), None)
        if given and name == "_local_scalar_dense":
            self._wait(stack)
            return True
        if given and str(kwargs.get("device")) == "cpu":
            self._wait(stack)
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        result = func(*args, **kwargs)
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.is_meta]
        if owner is not None and (given or made) and name not in NO_WORK:
            self.operations[owner][name] += 1
            self.bytes[owner] += self._moved(func, args, kwargs, made)
        return result

    def _wait(self, stack: list[tuple[str, str]]) -> None:
        """Note a wait for the device while a batch is under way; Transformers has one of its own before layer 0."""
        own = ("frames", "<listcomp>", "__torch_dispatch__")
        first = next(file for file, function in stack if "/torch/" not in file and function not in own)
        if any(function == "_forward_backward" for _, function in stack) and "/transformers/" not in first:
            self.waits.append(str(stack[:12]))

    @staticmethod
    def _moved(func: Any, args: Any, kwargs: Any, made: list[torch.Tensor]) -> int:
        """What is read, and what is written: an argument that changes counts twice."""
        names = [argument.name for argument in func._schema.arguments]
        total = sum(tensor.nbytes for tensor in made)
        written = {argument.name for argument in func._schema.arguments if argument.is_write}
        for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
            for tensor in tree_leaves(value):
                if isinstance(tensor, torch.Tensor):
                    total += tensor.nbytes * (2 if name in written and name != "out" else name != "out")
        return total


@pytest.fixture(scope="module")
def llama_8b() -> LoadedModel:
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=LAYERS,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    adapter = adapter_for("llama")
    return LoadedModel(model, None, adapter, read_layout(model, adapter), "8B", torch.device("meta"), None)


def counted(
    loaded: LoadedModel, level: Level, *, padded: bool = False, segment: Segment = WHOLE
) -> tuple[CalibrationPass, Counted]:
    """One whole batch, of which all is finite."""
    options = loaded, CaptureConfig(priors=()), level, list(ESTIMATORS.values())
    walk = CalibrationPass(*options, segment=segment, borders=Borders([8, 16]))
    ids = torch.zeros(SAMPLES, TOKENS, dtype=torch.long, device="meta")
    mask = torch.ones(SAMPLES, TOKENS, dtype=torch.bool)
    if padded:
        mask[0, 100:] = False
    with Counted() as counts:
        walk.batch(ids, mask, 0)
    walk.close()
    assert walk.tally.numbers == [0]
    return walk, counts


@pytest.mark.parametrize(("level", "most"), [(Level.GRADIENTS, 1.1), (Level.SQUARES, 3.1)])
def test_a_weight_costs_few_operations_and_about_the_floor(
    llama_8b: LoadedModel, level: Level, most: float
) -> None:
    """At most three per tensor and batch for `taylor`; the squares of `taylor_second` add two small ones."""
    walk, counts = counted(llama_8b, level)
    assert walk.folder is not None
    tensors = walk.folder.tracked
    weights = sum(item.parameter.numel() for item in tensors)
    assert isinstance(walk.folder._fold, FusedFold)
    assert len(tensors) == 7 * LAYERS
    assert counts.operations["fold"]["fold"] == len(tensors)
    assert counts.operations["fold"].total() / len(tensors) <= most, counts.operations["fold"]
    assert counts.bytes["fold"] <= 1.1 * FLOOR * weights
    assert counts.bytes["fold"] >= 10 * weights
    assert counts.waits == []


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("level", [Level.ACTIVATIONS, Level.GATE, Level.GRADIENTS])
def test_a_site_costs_few_operations_and_about_the_floor(
    llama_8b: LoadedModel, level: Level, padded: bool
) -> None:
    """At most six per site and batch, forward statistics and the check for finite numbers included."""
    walk, counts = counted(llama_8b, level, padded=padded)
    sites = walk.recorder.sites
    numbers = SAMPLES * TOKENS * sum(site.total.numel() for site in sites)
    reads = 1 if level == Level.ACTIVATIONS else 3  # bfloat16: the activation, and later it and its slope
    assert len(sites) == 2 * LAYERS
    assert counts.operations["sites"].total() / len(sites) <= 6, counts.operations["sites"]
    assert 2 * reads * numbers <= counts.bytes["sites"] <= 1.35 * 2 * reads * numbers
    assert counts.waits == []


def test_a_segment_waits_for_its_file_only_at_the_end_of_a_batch(llama_8b: LoadedModel) -> None:
    walk, counts = counted(llama_8b, Level.GRADIENTS, segment=TOP)
    assert [walk.runner.borders.input(layer, 0).shape for layer in (8, 16)] == 2 * [(SAMPLES, TOKENS, 4096)]
    walk.runner.borders.close()
    assert counts.operations["fold"]["fold"] == 7 * len(TOP.layers)
    assert counts.waits == []


def test_a_wait_would_be_seen(llama_8b: LoadedModel) -> None:
    """The counter itself: a question to the device in a hook is noted."""
    module = llama_8b.adapter.decoder_layers(llama_8b.model)[3]
    handle = module.register_forward_hook(lambda _, __, output: bool(output.isnan().any()) and None)
    try:
        _, counts = counted(llama_8b, Level.GATE)
    finally:
        handle.remove()
    assert len(counts.waits) == 1


@pytest.mark.parametrize("reason", ["no Triton", "float64", "another device"])
def test_where_the_kernels_cannot_be_used_pytorch_s_own_operations_are(
    llama_8b: LoadedModel, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    config = llama_8b.model.config
    loaded = llama_8b
    if reason == "no Triton":
        monkeypatch.setattr(fusible, "triton_is_here", lambda: False)
    elif reason == "another device":
        monkeypatch.setattr(fusible, "DEVICES", ("cuda",))
    else:
        with torch.device("meta"):
            loaded = replace(llama_8b, model=LlamaForCausalLM(config).double())
    walk = CalibrationPass(
        loaded, CaptureConfig(priors=()), Level.SQUARES, [], segment=TOP, borders=Borders()
    )
    walk.close()
    assert walk.folder is not None
    assert isinstance(walk.folder._fold, PlainFold)
    assert isinstance(walk.recorder._sums, PlainSums)
