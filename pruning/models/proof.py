"""The proof that a model is what its family's adapter says: made at load, on a few tokens, by two forward passes.

Scores, priors, refits and surgery stand on four statements. A family that breaks one of them (a factor on the
residual stream, norms behind the blocks, a factor on the logits, heads in another order) would be pruned by wrong
numbers without a word, so it is refused here:

- what enters the first layer is the embedding, times the family's factor;
- a decoder layer adds its blocks, one after the other, each as `pruning/models/block.py` says;
- behind the last layer comes one norm, and what it gives is the decoder's output;
- the logits are the head's, bent as the family says;
- a unit (KV group, channel) is one run of features from its projections to the output projection's input.

Shapes: B batch, T tokens, D hidden, F features of an output projection's input.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from secateur.pruning.errors import ModelError
from secateur.pruning.models.adapter import STRUCTURES, Block, ModelAdapter, Structure, linear
from secateur.pruning.models.layout import Layout

TOKENS = 8
Seen = dict[tuple[int, str], torch.Tensor]
"""(layer, what) -> a tensor: `in`, `out` of layers; `STRUCTURE in`, `normed`, `given`, `made`, `closed`, `added` and
`units` of blocks."""


@torch.no_grad()
def prove(model: Any, adapter: ModelAdapter, layout: Layout) -> None:
    """Hold a loaded model against its family's adapter.

    Raises:
        ModelError: Naming the statement that does not hold, and the first layer where it does not.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(3, 3 + TOKENS, device=model.get_input_embeddings().weight.device)[None] % rows
    with _watched(model, adapter) as seen:
        decoder = adapter.decoder(model)
        with (
            _kept(_last_norm(model, adapter)) as norm,
            _kept(decoder, lambda output: output.last_hidden_state) as final,
        ):
            logits = model(input_ids=ids, use_cache=False).logits
    if not _same(adapter.embed(model, ids), seen[0, "in"]):
        raise _wrong(
            adapter, "what enters its first layer is not the embedding: something scales or adds to it"
        )
    for index, layer in enumerate(adapter.decoder_layers(model)):
        _residual(seen, index, layer, adapter)
    last = len(layout.layers) - 1
    if not (norm and _same(seen[last, "out"], norm[0][0]) and _same(norm[0][1], final[0][1])):
        raise _wrong(adapter, "the decoder's output is not one norm of the last layer's")
    head = adapter.head(model)
    if not _close(head(final[0][1].to(head.module.weight.device)), logits):
        raise _wrong(adapter, "the logits are not its head's: something scales or bends them behind it")
    if all(
        bool(torch.isfinite(value).all()) for value in (logits, final[0][1])
    ):  # else 0 x infinity would speak
        _units(model, adapter, layout, ids, seen)


def _last_norm(model: nn.Module, adapter: ModelAdapter) -> nn.Module:
    try:
        return adapter.final_norm(model)
    except AttributeError as error:
        raise _wrong(adapter, f"it has no norm at {adapter.last_norm}") from error


def _residual(seen: Seen, index: int, layer: nn.Module, adapter: ModelAdapter) -> None:
    stream = seen[index, "in"]
    terms = (stream,)
    for structure in STRUCTURES:
        block = adapter.block(structure)
        if block.module(layer) is None:
            continue

        def of(what: str, name: str = structure) -> torch.Tensor:
            return seen[index, f"{name} {what}"]

        feeds = "x" if block.norm is None else f"{block.norm}(x)"
        fed = stream if block.norm is None else of("normed")
        if not ((block.norm is None or _same(of("in"), stream)) and _same(fed, of("given"))):
            raise _wrong(
                adapter, f"layer {index} does not feed its {structure} with {feeds}, x what came before"
            )
        if block.after is not None and not _same(of("made"), of("closed")):
            raise _wrong(adapter, f"layer {index} does not norm what its {structure} gives by {block.after}")
        added = of("made" if block.after is None else "added")
        added = added if block.scale is None else added * block.factor(layer)
        terms, stream = (*terms, added), stream + added
    if not _same(stream, seen[index, "out"], terms):
        raise _wrong(
            adapter,
            f"layer {index} is not the sum of its input and its blocks: it scales or norms what they add",
        )


def _units(model: Any, adapter: ModelAdapter, layout: Layout, ids: torch.Tensor, seen: Seen) -> None:
    """Silence the last unit of every block: its features have to be zero, in the first layer all others as before."""
    with ExitStack() as stack:
        places: dict[tuple[int, Structure], slice] = {}
        for index, layer in enumerate(adapter.decoder_layers(model)):
            for structure in STRUCTURES:
                units = layout.layers[index].units(structure)
                if units == 0:
                    continue
                for projection in adapter.of(structure):
                    module = linear(layer, projection)
                    assert module is not None
                    if projection.axis == 0:
                        handle = module.register_forward_hook(_silenced(module.out_features // units))
                        stack.callback(handle.remove)
                    else:
                        size = module.in_features // units
                        places[index, structure] = slice(module.in_features - size, module.in_features)
        after = stack.enter_context(_watched(model, adapter))
        model(input_ids=ids, use_cache=False)
    first = min((index for index, _ in places), default=0)
    for (index, structure), place in places.items():
        features = after[index, f"{structure} units"]
        whole = bool((features[..., place] == 0).all())
        if index == first and structure == _first(places, index):
            whole = whole and _close(
                features[..., : place.start], seen[index, f"{structure} units"][..., : place.start]
            )
        if not whole:
            raise _wrong(
                adapter, f"the units of layer {index}, {structure}, are not runs of neighbouring features"
            )


def _first(places: dict[tuple[int, Structure], slice], index: int) -> Structure:
    """The block of a layer that sees the stream first."""
    return next(structure for structure in STRUCTURES if (index, structure) in places)


def _silenced(size: int) -> Callable[..., torch.Tensor]:
    def hook(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[..., :-size], torch.zeros_like(output[..., -size:])], dim=-1)

    return hook


@contextmanager
def _watched(model: nn.Module, adapter: ModelAdapter) -> Generator[Seen]:
    """What layers and blocks take and give during one forward pass."""
    seen: Seen = {}

    def keep(key: tuple[int, str], taken: str | None, given: str | None) -> Callable[..., None]:
        index, prefix = key

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if taken is not None:
                seen[index, f"{prefix}{taken}"] = args[0] if args else kwargs["hidden_states"]
            if given is not None:
                seen[index, f"{prefix}{given}"] = output[0] if isinstance(output, tuple) else output

        return hook

    with ExitStack() as stack:

        def watch(module: nn.Module, key: tuple[int, str], taken: str | None, given: str | None) -> None:
            handle = module.register_forward_hook(keep(key, taken, given), with_kwargs=True)
            stack.callback(handle.remove)

        for index, layer in enumerate(adapter.decoder_layers(model)):
            watch(layer, (index, ""), "in", "out")
            for structure in STRUCTURES:
                for path, taken, given in _places(layer, adapter.block(structure)):
                    watch(layer.get_submodule(path), (index, f"{structure} "), taken, given)
        yield seen


def _places(layer: nn.Module, block: Block) -> list[tuple[str, str | None, str | None]]:
    """Modules of a block that are watched, and what their input and output are called."""
    if block.module(layer) is None:
        return []
    places: list[tuple[str | None, str | None, str | None]] = [
        (block.norm, "in", "normed"),
        (block.path, "given", "made"),
        (block.after, "closed", "added"),
        (block.output.path, "units", None),
    ]
    return [(path, taken, given) for path, taken, given in places if path is not None]


@contextmanager
def _kept(
    module: nn.Module, read: Callable[[Any], torch.Tensor] = lambda output: output
) -> Generator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """First argument and output of a module, call by call."""
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = module.register_forward_hook(
        lambda _, args, output: calls.append((args[0] if args else torch.empty(0), read(output)))
    )
    try:
        yield calls
    finally:
        handle.remove()


def _same(one: torch.Tensor, two: torch.Tensor, terms: tuple[torch.Tensor, ...] = ()) -> bool:
    """Equal up to the rounding of one addition of `terms` (element by element), in the tensors' own precision."""
    if one.shape != two.shape:
        return False
    step = 4 * torch.finfo(two.dtype).eps
    one, two = one.to(two.device).double(), two.double()
    sizes = [value.to(two.device).double().abs() for value in (two, *terms)]
    return torch.allclose(one, two, rtol=0, atol=0, equal_nan=True) or bool(
        ((one - two).abs() <= step * torch.stack(sizes).sum(0)).logical_or(~torch.isfinite(two)).all()
    )


def _close(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Equal up to the rounding of a matrix product, in the tensors' own precision."""
    step = 16 * torch.finfo(two.dtype).eps
    finite = torch.isfinite(two)
    scale = float(two[finite].double().abs().max()) if bool(finite.any()) else 1.0
    return torch.allclose(
        one.to(two.device).double(), two.double(), rtol=0, atol=step * scale, equal_nan=True
    )


def _wrong(adapter: ModelAdapter, what: str) -> ModelError:
    return ModelError(
        f"family {adapter.title} (model_type={adapter.model_type}): {what}. Its adapter in pruning/models/ does not "
        "describe this model, and pruning by it would use wrong numbers (docs/adding_a_model.md)"
    )
