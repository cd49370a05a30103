"""What a step of `eval/bench_gpu.py` works on, and what it finds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from secateur.eval.speed.journal import Roof
from secateur.eval.speed.timing import synchronise
from secateur.pruning.memory import Meter
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.plan import PruningPlan


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: The side that was measured.
        seconds: What it took.
        floor: Seconds that nothing can beat on this device, None where no floor is known.
        floor_is: What the floor counts.
        peak: Peak memory in bytes, the model's included; None where it cannot be known.
        facts: What else there is to say.
    """

    what: str
    seconds: float
    floor: float | None
    floor_is: str
    peak: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Measured over floor."""
        return None if self.floor is None else self.seconds / self.floor

    def text(self) -> str:
        """For a person."""
        floor = "no floor" if self.floor is None else f"floor {self.floor:.4g} s ({self.floor_is})"
        ratio = "" if self.ratio is None else f", {self.ratio:.2f} x"
        peak = "" if self.peak is None else f", {self.peak / 1e9:.2f} GB"
        more = "".join(f", {name} {value}" for name, value in self.facts.items())
        return f"{self.what}: {self.seconds:.4g} s, {floor}{ratio}{peak}{more}"


@dataclass
class Bench:
    """A model that the steps share.

    Attributes:
        shape: Its name.
        loaded: The model; dense, until a step cuts it.
        roof: What the device can do in the model's dtype.
        wide: The same in float64.
        plan: What it was cut to.
    """

    shape: str
    loaded: LoadedModel
    roof: Roof
    wide: Roof
    plan: PruningPlan | None = None

    @property
    def tiny(self) -> bool:
        """Whether the sizes of everything else are small as well."""
        return self.shape == "tiny"

    def timed(self, work: Callable[[], Any]) -> tuple[float, int | None, Any]:
        """Seconds, peak bytes and result of some work."""
        meter = Meter(self.loaded.device)
        synchronise(self.loaded.device)
        start = time.perf_counter()
        result = work()
        synchronise(self.loaded.device)
        return time.perf_counter() - start, meter.peak().where()[1], result
