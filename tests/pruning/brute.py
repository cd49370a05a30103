"""The plain, slow way: gradients by `loss.backward()`, scores index by index."""

import torch
from torch.nn.functional import cross_entropy

from secateur.pruning.greedy_removal import ROUNDS
from secateur.pruning.least_squares import damped
from secateur.pruning.models.adapter import STRUCTURES
from secateur.pruning.models.loading import LoadedModel


def plain_gradients(loaded: LoadedModel, batches: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Gradients of the mean token loss of each batch by `loss.backward()`, by parameter name."""
    result = []
    for ids in batches:
        for parameter in loaded.model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        logits = loaded.model(ids, use_cache=False).logits
        cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)).backward()
        result.append({n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None})
    return result


def brute_taylor(
    loaded: LoadedModel, gradients: list[dict[str, torch.Tensor]], second: bool = False
) -> dict[str, torch.Tensor]:
    """Sum of abs(w x G) over each unit, index by index, from whole-model gradients."""
    total = {n: sum(g[n] for g in gradients) for n in gradients[0]}
    squares = {n: sum(g[n] ** 2 for g in gradients) / len(gradients) for n in gradients[0]}
    weights = dict(loaded.model.named_parameters())
    found: dict[str, list[float]] = {s: [] for s in STRUCTURES}
    for index, layer in enumerate(loaded.layout.layers):
        prefix = f"{loaded.adapter.layers}.{index}."
        for structure in STRUCTURES:
            for unit in range(layer.units(structure)):
                value = 0.0
                for projection in loaded.adapter.of(structure):
                    for kind in ("weight", "bias"):
                        name = f"{prefix}{projection.path}.{kind}"
                        if name not in weights or (kind == "bias" and projection.axis == 1):
                            continue
                        w, g, h = weights[name], total[name], squares[name]
                        size = w.shape[projection.axis if kind == "weight" else 0] // layer.units(structure)
                        part = slice(unit * size, (unit + 1) * size)
                        cut = (part,) if projection.axis == 0 else (slice(None), part)
                        value += float((w[cut] * g[cut]).abs().sum().detach())
                        if second:
                            value += float(0.5 * (w[cut] ** 2 * h[cut]).abs().sum().detach())
                found[structure].append(value)
    return {s: torch.tensor(v, dtype=torch.float64) for s, v in found.items()}


def plain_greedy_costs(
    weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor | None, units: int, ridge: float = 1e-4
) -> torch.Tensor:
    """`greedy_costs` with W, M W and G^-1 rewritten whole after every removal, float64, inverse by LU."""
    weight = weight.double() * (gram.diagonal() > 0)
    inverse = torch.linalg.inv(damped(gram, ridge))
    weighed = weight.clone() if metric is None else metric.double() @ weight
    size = weight.shape[1] // units
    alive, costs = torch.ones(units, dtype=torch.bool), torch.zeros(units, dtype=torch.float64)
    floor = 0.0
    while bool(alive.any()):
        found = _rises(weight, weighed, inverse, units).masked_fill(~alive, float("inf"))
        for unit in torch.topk(
            found, min(-(-units // ROUNDS), int(alive.sum())), largest=False
        ).indices.tolist():
            floor = max(floor, float(found[unit]))
            costs[unit], alive[unit] = floor, False
            gone = torch.arange(unit * size, (unit + 1) * size)
            rows = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
            for matrix in (weight, weighed):
                matrix -= matrix[:, gone] @ rows
                matrix[:, gone] = 0
            inverse -= inverse[:, gone] @ rows
            inverse[gone], inverse[:, gone] = 0, 0
            inverse[gone, gone] = 1
    return costs


def _rises(weight: torch.Tensor, weighed: torch.Tensor, inverse: torch.Tensor, units: int) -> torch.Tensor:
    """tr(M W_u ([G^-1]_uu)^-1 W_u^T), unit by unit."""
    size = weight.shape[1] // units
    if size == 1:
        return (weight * weighed).sum(0) / inverse.diagonal()
    found: list[torch.Tensor] = []
    for unit in range(units):
        part = slice(unit * size, (unit + 1) * size)
        found.append(torch.linalg.solve(inverse[part, part], weight[:, part].T @ weighed[:, part]).trace())
    return torch.stack(found)
