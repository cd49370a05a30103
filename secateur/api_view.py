"""A pruned model at a glance: a small picture of what is left of each layer."""

from html import escape

from secateur.pruning.plan import PruningPlan

WIDE, HIGH, GAP = 10, 60, 2
"""Pixels of a layer's bar, of a full bar, and between two."""
COLOURS = {"attention": "#4878a8", "mlp": "#d08a3c"}


def picture(plan: PruningPlan) -> str:
    """SVG: per layer, the kept shares of KV groups and of MLP channels, with the numbers as tooltips."""
    parts: list[str] = []
    for index, layer in enumerate(plan.layers):
        shares = {
            "attention": (len(layer.kept_kv_groups), layer.kv_groups, "KV groups"),
            "mlp": (len(layer.kept_channels), layer.channels, "channels"),
        }
        for row, (structure, (kept, of, what)) in enumerate(shares.items()):
            left, top = index * (WIDE + GAP), row * (HIGH + 16)
            high = HIGH * kept / of if of else 0.0
            parts.append(
                f"<g><title>layer {index}: {kept} of {of} {what}</title>"
                f'<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" fill="#eeeeee"/>'
                f'<rect x="{left}" y="{top + HIGH - high:.1f}" width="{WIDE}" height="{high:.1f}" '
                f'fill="{COLOURS[structure]}"/></g>'
            )
    for row, text in enumerate(("KV groups kept", "MLP channels kept")):
        parts.append(f'<text x="0" y="{row * (HIGH + 16) + HIGH + 12}" font-size="10">{text}</text>')
    width, height = max(120, len(plan.layers) * (WIDE + GAP)), 2 * (HIGH + 16)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{"".join(parts)}</svg>'


def card(title: str, plan: PruningPlan) -> str:
    """The picture under one line of words."""
    words = f"{title}: {plan.removed:,} of {plan.total_parameters:,} parameters removed ({100 * plan.ratio:.1f} %)"
    return f"<div><p>{escape(words)}</p>{picture(plan)}</div>"
