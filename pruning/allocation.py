"""From scores to a plan: the lowest-scored units go until the parameter budget is spent exactly.

Units are offered in ascending order of score; one that does not fit into what is left of the budget, or that a
guard rail protects, is passed over and cheaper ones behind it fill up. Where that ends with no channel left to take,
one more KV group goes and the best of the removed channels come back. The budget is met to within one MLP channel
(to within `guard.round_to` channels, or one KV group where only attention is cut).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from secateur.pruning.alike import cut_alike
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig, identity
from secateur.pruning.errors import BudgetError, ConfigError
from secateur.pruning.importance.scores import Scores
from secateur.pruning.models.adapter import STRUCTURES, Structure
from secateur.pruning.models.layout import Layout
from secateur.pruning.plan import LayerPlan, PruningPlan


@dataclass(frozen=True)
class Offer:
    """Units of one block that can only be removed together, with their common score (and what breaks a tie)."""

    score: float
    tie: float
    layer: int
    structure: Structure
    units: tuple[int, ...]


@dataclass
class _Cut:
    """What has been removed so far, and the guard rails."""

    layout: Layout
    guard: GuardConfig
    removed: dict[tuple[int, Structure], list[int]] = field(default_factory=dict)
    spent: int = 0
    bound: Counter[str] = field(default_factory=Counter)

    def left(self, layer: int, structure: Structure) -> int:
        """Units that a block still has."""
        return self.layout.layers[layer].units(structure) - len(self.removed.get((layer, structure), ()))

    def price(self, offer: Offer) -> int:
        """Parameters that go with an offer; the last units of a block take its norm and shared parts along."""
        layer = self.layout.layers[offer.layer]
        whole = self.left(offer.layer, offer.structure) == len(offer.units)
        return layer.cost(offer.structure) * len(offer.units) + (layer.fixed(offer.structure) if whole else 0)

    def guarded(self, offer: Offer) -> str:
        """The guard rail that forbids an offer, or nothing."""
        layers = len(self.layout.layers)
        if offer.layer < self.guard.protect_first:
            return "protect_first"
        if offer.layer >= layers - self.guard.protect_last:
            return "protect_last"
        units = self.layout.layers[offer.layer].units(offer.structure)
        after = self.left(offer.layer, offer.structure) - len(offer.units)
        least = self.guard.min_kv_groups if offer.structure == "attention" else self.guard.min_channels
        if after < min(least, units):
            return "min_kv_groups" if offer.structure == "attention" else "min_channels"
        if units - after > self.guard.max_layer_ratio * units + 1e-9:
            return "max_layer_ratio"
        return ""

    def take(self, offers: Iterable[Offer], budget: int) -> int:
        """Remove what fits into `budget` parameters, in the order given. Returns what was spent."""
        start = self.spent
        gone = {(*place, unit) for place, units in self.removed.items() for unit in units}
        for offer in offers:
            if (offer.layer, offer.structure, offer.units[0]) in gone:
                continue
            price = self.price(offer)
            if price > budget - (self.spent - start):
                continue
            rail = self.guarded(offer)
            if rail:
                self.bound[rail] += 1
                continue
            self.removed.setdefault((offer.layer, offer.structure), []).extend(offer.units)
            self.spent += price
        return self.spent - start

    def exchange(self, offers: Sequence[Offer], target: int) -> bool:
        """Take the lowest KV group that does not fit, and give the best removed channels back for it.

        Returns whether that spent more of the budget than before; where it does not, all stays as it was.
        """
        before, removed = self.spent, {place: list(units) for place, units in self.removed.items()}
        gone = {(*place, unit) for place, units in self.removed.items() for unit in units}
        groups = (
            o for o in offers if o.structure == "attention" and (o.layer, o.structure, o.units[0]) not in gone
        )
        group = next((o for o in groups if not self.guarded(o)), None)
        if group is None:
            return False
        self.spent += self.price(group)
        self.removed.setdefault((group.layer, group.structure), []).extend(group.units)
        for offer in reversed(offers):
            if self.spent <= target:
                break
            if offer.score == -np.inf:
                break
            if offer.structure == "mlp" and (offer.layer, offer.structure, offer.units[0]) in gone:
                units = self.removed[offer.layer, offer.structure]
                units[:] = [unit for unit in units if unit not in offer.units]
                self.spent -= self.price(offer)
        if self.spent <= target:
            self.take(offers, target - self.spent)
        if before < self.spent <= target:
            return True
        self.spent, self.removed = before, removed
        return False


def make_plan(
    scores: Scores,
    layout: Layout,
    method: MethodConfig,
    budget: BudgetConfig,
    guard: GuardConfig,
    fingerprint: str,
) -> PruningPlan:
    """Decide which units stay. Units with a score of minus infinity are gone already and go first.

    Raises:
        BudgetError: The guard rails leave less to remove than the budget asks for, or nothing would be left.
        ConfigError: `method.layer_weights` does not fit the model.
    """
    whole = layout.total_parameters if budget.of == "total" else layout.decoder_parameters
    added = 0
    if method.compensation.kind == "bias" and budget.ratio > 0:  # as many units more must go as biases come
        added = sum(_gains(_Cut(layout, guard)))
    target = round(budget.ratio * whole) + added
    offers = sorted(
        _offers(scores, layout, method, guard), key=lambda o: (o.score, o.tie, o.layer, o.structure, o.units)
    )
    cut = _Cut(layout, guard)
    step = step_of(layout, method, guard)
    if method.allocation == "alike":
        cut.removed, cut.spent = cut_alike(scores, layout, method, guard, target)
    else:
        _spend(cut, offers, _layer_targets(layout, method, target), target, step)
    if target - cut.spent >= step and target > 0:
        raise BudgetError(_impossible(target, cut, whole, budget, guard))
    layers = tuple(_layer_plan(cut, index) for index in range(len(layout.layers)))
    if not any(layer.kept_kv_groups or layer.kept_channels for layer in layers):
        raise BudgetError(
            f"budget.ratio={budget.ratio} (of {budget.of}) leaves no layer of the model: choose a smaller "
            "budget.ratio, or protect layers with guard.min_kv_groups, guard.min_channels or guard.protect_last"
        )
    return PruningPlan(
        layers=layers,
        fingerprint=fingerprint,
        target=target - added,
        removed=cut.spent - (sum(_gains(cut)) if added else 0),
        total_parameters=layout.total_parameters,
        decoder_parameters=layout.decoder_parameters,
        decided={"method": identity(method), "budget": identity(budget), "guard": identity(guard)},
        guards=tuple(
            f"guard.{name} held back {count} of the units that scored lowest"
            for name, count in cut.bound.items()
        ),
    )


def _spend(cut: _Cut, offers: list[Offer], targets: list[int], target: int, step: int) -> None:
    """Take what each layer owes, then what scores lowest, until less than `step` of the target is left."""
    for layer, share in enumerate(targets):
        cut.take((o for o in offers if o.layer == layer), share)
    offers = [o for o in offers if not targets or targets[o.layer] > 0]
    cut.take(offers, target - cut.spent)
    while target - cut.spent >= step and cut.exchange(offers, target):
        pass


def _gains(cut: _Cut) -> list[int]:
    """Parameters of the biases that `compensation=bias` gives to the blocks that are left."""
    return [
        layer.gain(s) for i, layer in enumerate(cut.layout.layers) for s in STRUCTURES if cut.left(i, s) > 0
    ]


def _offers(scores: Scores, layout: Layout, method: MethodConfig, guard: GuardConfig) -> list[Offer]:
    """Every unit of the structures to cut; channels in runs of `round_to`, lowest first."""
    offers: list[Offer] = []
    for structure in STRUCTURES:
        if method.structures not in ("both", structure):
            continue
        for layer, values in enumerate(scores.units[structure]):
            run = guard.round_to if structure == "mlp" else 1
            ties = scores.base[structure][layer] if scores.base else values
            order = np.lexsort((ties, values))
            offers += [
                Offer(
                    float(values[members].mean()),
                    float(ties[members].mean()),
                    layer,
                    structure,
                    tuple(int(i) for i in members),
                )
                for members in _runs(order, run)
            ]
    return offers


def _runs(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut an order into runs of `size`, the first one shorter so that what is kept stays a multiple of `size`."""
    first = len(order) % size
    edges = ([first] if first else []) + list(range(first + size, len(order) + 1, size))
    return [part for part in np.split(order, edges) if len(part)]


def _layer_targets(layout: Layout, method: MethodConfig, target: int) -> list[int]:
    """Parameters to remove from each layer before the common back-fill; nothing for a global allocation."""
    if method.allocation == "global":
        return []
    sizes = np.array(
        [sum(layer.units(s) * layer.cost(s) for s in STRUCTURES) for layer in layout.layers], dtype=float
    )
    if method.allocation == "per_layer":
        weights: Sequence[float] = method.layer_weights or ()
        if len(weights) != len(sizes):
            raise ConfigError(
                f"method.layer_weights has {len(weights)} values, the model has {len(sizes)} layers"
            )
        sizes = sizes * np.array(weights)
    if sizes.sum() == 0:
        raise ConfigError("method.layer_weights are all zero: there is nothing to cut")
    return [int(target * size / sizes.sum()) for size in sizes]


def step_of(layout: Layout, method: MethodConfig, guard: GuardConfig) -> int:
    """The amount that no budget is missed by, in parameters: a run of channels, or a KV group where only these go.

    The last KV group of a layer takes the norm along. Layers that stay alike lose a unit each.
    """
    if method.allocation == "alike":
        kind = method.structures == "attention"
        return sum(la.group_cost if kind else la.channel_cost * guard.round_to for la in layout.layers) or 1
    costs = (
        layer.group_cost + layer.attention_fixed
        if method.structures == "attention"
        else layer.channel_cost * guard.round_to
        for layer in layout.layers
    )
    return max([1, *costs])


def _layer_plan(cut: _Cut, index: int) -> LayerPlan:
    layer = cut.layout.layers[index]
    kept = {
        s: tuple(sorted(set(range(layer.units(s))) - set(cut.removed.get((index, s), ()))))
        for s in STRUCTURES
    }
    return LayerPlan(layer.kv_groups, layer.channels, kept["attention"], kept["mlp"])


def _impossible(target: int, cut: _Cut, whole: int, budget: BudgetConfig, guard: GuardConfig) -> str:
    rails = (
        ", ".join(f"guard.{name}={getattr(guard, name)}" for name in cut.bound) or "what can be pruned at all"
    )
    return (
        f"budget.ratio={budget.ratio} (of {budget.of}) asks to remove {target:,} parameters; {rails} allows "
        f"{cut.spent:,}, that is budget.ratio={cut.spent / whole:.4f}. Lower the ratio or loosen the guard rail"
    )
