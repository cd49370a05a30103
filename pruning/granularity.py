"""What a budget is missed by where units are coarse (`guard.round_to`, KV groups), and what can be met instead."""

from collections.abc import Callable

from secateur.pruning.errors import BudgetError
from secateur.pruning.models.layout import Layout
from secateur.pruning.plan import PruningPlan

DIGITS = range(3, 16)
"""Decimals that a ratio is written with: as few as name one number of parameters."""


def missed(
    plan: PruningPlan, layout: Layout, whole: int, step: int, planned: Callable[[float], PruningPlan]
) -> str:
    """What a plan misses its budget by and the nearest ratios that are met, in words; nothing for less than a channel.

    Args:
        plan: What the budget led to.
        layout: Of the model that it was made for.
        whole: Parameters that the ratio is a share of.
        step: What a budget can be missed by.
        planned: The plan of any other `budget.ratio`.
    """
    channel = min((layer.channel_cost for layer in layout.layers if layer.channels), default=1)
    short = plan.target - plan.removed
    if short < channel:
        return ""

    def removes(amount: int) -> int:
        try:
            return planned(amount / whole).removed
        except BudgetError:
            return 0

    near = [amount for amount in (plan.removed, _above(plan, step, removes)) if removes(amount) == amount]
    ratios = " and ".join(_ratio(amount, whole) for amount in near if amount)
    return (
        f"the units that go together are coarse: {plan.removed:,} of the {plan.target:,} parameters asked for go, "
        f"{short:,} fewer; the nearest budget.ratio that is met: {ratios or 'none was found'}"
    )


def _above(plan: PruningPlan, step: int, removes: Callable[[int], int]) -> int:
    """The smallest number of parameters above the target that a plan removes, or 0."""
    best, asked = 0, plan.target + step
    while asked > plan.target and (found := removes(asked)) > plan.target:
        best, asked = found, min(found, asked) - 1
    return best


def _ratio(amount: int, whole: int) -> str:
    """The shortest decimal that, times `whole`, rounds to `amount`."""
    texts = (f"{amount / whole:.{digits}f}" for digits in DIGITS)
    return next(text for text in texts if round(float(text) * whole) == amount)
