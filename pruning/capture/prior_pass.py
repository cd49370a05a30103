"""The walks that measure priors over many samples, shared out among worker processes.

Shapes: N samples, n prior samples, L layers.
"""

from collections.abc import Sequence

import torch

from secateur.pruning.calibration import Samples
from secateur.pruning.capture.priors import measure_priors
from secateur.pruning.capture.result import prior_samples
from secateur.pruning.capture.room import Room
from secateur.pruning.capture.site_sums import Site
from secateur.pruning.capture.snapshots import batch_bounds
from secateur.pruning.capture.workers import Workers
from secateur.pruning.config import CaptureConfig, TaylorConfig
from secateur.pruning.models.adapter import STRUCTURES
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.progress import Bar


def gate_prior(sites: Sequence[Site], sizes: dict[int, int], workers: Workers, layers: int) -> torch.Tensor:
    """First-order loss rise per sample, float64 [N, L, 3]: minus the sum over units of a x dL/da.

    `sizes` holds the number of samples of each batch that counted; layers without a site are zero.
    """
    rows: dict[int, torch.Tensor] = {}
    for batch, (number, samples) in enumerate(sizes.items()):
        value = torch.zeros(samples, layers, 3, dtype=torch.float64)
        for site in sites:
            value[:, site.layer, 1 + STRUCTURES.index(site.structure)] = -site.slopes[batch].cpu()
        value[:, :, 0] = value[:, :, 1] + value[:, :, 2]
        rows[number] = value
    return workers.gather_rows(rows)


def bypass_priors(
    loaded: LoadedModel,
    samples: Samples,
    config: CaptureConfig,
    taylor: TaylorConfig,
    count: int,
    workers: Workers,
    progress: bool | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None, int]:
    """Loss and cosine priors of the first samples, [n, L, 3] each, and the tokens it took."""
    if not {"loss", "cosine"} & set(config.priors):
        return None, None, 0
    wanted = prior_samples(count, config.prior_share)
    room = Room(taylor.batch_size, fixed=config.batch_size != "auto")

    def measure(rows: slice) -> tuple[torch.Tensor | None, torch.Tensor, int]:
        ids, mask = samples.ids[rows].to(loaded.device), samples.mask(rows).to(loaded.device)
        return measure_priors(loaded.model, loaded.adapter, ids, mask, loss="loss" in config.priors)

    rises: dict[int, torch.Tensor] = {}
    cosines: dict[int, torch.Tensor] = {}
    work = 0
    with Bar("priors", wanted, show=progress) as bar:
        for number, (start, stop) in enumerate(batch_bounds(taylor.batch_size, [wanted])):
            if workers.mine(number):
                parts = room.in_parts(start, stop, measure)
                work += sum(tokens for _, _, tokens in parts)
                cosines[number] = torch.cat([cosine for _, cosine, _ in parts])
                if "loss" in config.priors:
                    rises[number] = torch.cat([rise for rise, _, _ in parts if rise is not None])
            bar.advance(stop - start)
    return (
        (workers.gather_rows(rises) if "loss" in config.priors else None),
        workers.gather_rows(cosines),
        work,
    )
