"""The sums of a batch on a GPU: two operations per site and direction, one wait and a few operations for all sites.

Shapes: B batch, T tokens, F features of all sites, U units of all sites.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch

from secateur.pruning.capture import launches
from secateur.pruning.capture.site_sums import Site


class FusedSums:
    """`SiteSums` by the kernels. The sites' sums become parts of one tensor each."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        device = sites[0].total.device
        self._features = _slices([site.total.numel() for site in sites])
        self._units = _slices([site.units for site in sites])
        self._totals = torch.zeros(2, self._features[-1].stop, dtype=torch.float64, device=device)
        self._gates = torch.zeros(self._units[-1].stop, dtype=torch.float64, device=device)
        for site, features, units in zip(sites, self._features, self._units, strict=True):
            site.total, site.squares = self._totals[:, features]
            site.gate = self._gates[units]
        self._seen = torch.zeros_like(self._totals)
        self._products: list[torch.Tensor] = []
        self._pieces = 0
        self._text: torch.Tensor | None = None
        self._scale = 1.0

    def begin(self, text: torch.Tensor | None, scale: float) -> None:
        """See `SiteSums`."""
        self._scale = scale
        self._seen.zero_()
        self._products, self._pieces = [], 0
        self.more(text)

    def more(self, text: torch.Tensor | None) -> None:
        """See `SiteSums`."""
        self._text = None if text is None else text.contiguous()
        self._pieces += 1

    def see(self, number: int, activation: torch.Tensor) -> None:
        """See `SiteSums`."""
        activation = activation.contiguous()
        parts = launches.token_parts(activation.shape[:-1].numel())
        sums = torch.empty(2, parts, activation.shape[-1], dtype=torch.float32, device=activation.device)
        launches.site_sums(activation, self._text, sums)
        seen = self._seen[:, self._features[number]]
        if self._pieces == 1:
            torch.sum(sums, 1, dtype=torch.float64, out=seen)
        else:
            seen += torch.sum(sums, 1, dtype=torch.float64)

    def receive(self, number: int, activation: torch.Tensor, slope: torch.Tensor) -> None:
        """See `SiteSums`."""
        samples, tokens, features = activation.shape
        if len(self._products) < self._pieces:
            self._products.append(self._gates.new_zeros(samples, len(self._gates)))
        parts = launches.token_parts(tokens)
        sums = torch.empty(samples, parts, features, dtype=torch.float32, device=activation.device)
        launches.site_products(activation.contiguous(), slope.contiguous(), sums, 1.0 / self._scale)
        per_unit = sums.view(samples, parts, self._sites[number].units, -1)
        torch.sum(per_unit, (1, 3), dtype=torch.float64, out=self._products[-1][:, self._units[number]])

    def unsound(self) -> int | None:
        """See `SiteSums`."""
        known = [self._seen, *self._products]
        if bool(torch.isfinite(torch.stack([sums.sum() for sums in known])).all()):
            return None
        for number, (features, units) in enumerate(zip(self._features, self._units, strict=True)):
            own = [self._seen[:, features], *(products[:, units] for products in self._products)]
            if not all(bool(torch.isfinite(sums).all()) for sums in own):
                return number
        raise AssertionError("sums that are not finite belong to a site")

    def commit(self, sizes: Sequence[int]) -> None:
        """See `SiteSums`."""
        self._totals += self._seen
        if self._products:
            products = self._products[0] if len(self._products) == 1 else torch.cat(self._products)
            self._gates += products.abs().sum(0)
            if len(set(sizes)) == 1:
                slopes = products * sizes[0]
            else:
                factors = torch.tensor([size for size in sizes for _ in range(size)], device=products.device)
                slopes = products * factors[:, None]
            for site, units in zip(self._sites, self._units, strict=True):
                site.slopes += slopes[:, units].sum(1).split(list(sizes))
        self._products = []


def _slices(sizes: Sequence[int]) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise([0, *accumulate(sizes)])]
