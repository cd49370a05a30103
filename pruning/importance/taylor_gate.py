"""Taylor importance of a gate on each unit: sum over samples of abs(sum over tokens of a x dL/da).

a is the unit's activation at the input of `o_proj` / `down_proj`. Needs no weight gradient.
Michel et al. 2019, arXiv 1905.10650.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor | None:
    """The gate's importance at the input of `o_proj` / `down_proj`; other projections add nothing. float64 [U]."""
    return view.gate


register(
    Estimator(
        "taylor_gate",
        Level.GATE,
        score,
        "sum over samples of abs(a x dL/da); no weight gradients",
        "arXiv 1905.10650",
    )
)
