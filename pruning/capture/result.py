"""`Capture`: everything one pass learned, as tensors of a few MB; its file form.

Shapes: L layers, P tracked tensors, N samples, n prior samples, S statistics, U units of all layers of a structure.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from secateur.pruning.capture.moments import STATISTICS, layer_statistics
from secateur.pruning.capture.priors import BLOCKS
from secateur.pruning.capture.views import Level
from secateur.pruning.errors import StorageError
from secateur.pruning.files import file_digest, new_directory, read_json, write_json
from secateur.pruning.models.adapter import Structure
from secateur.pruning.tensors import disk_errors

TENSORS, FACTS = "capture.safetensors", "capture.json"


@dataclass(frozen=True)
class Capture:
    """What a pass over the calibration text learned.

    Attributes:
        level: How much was computed.
        snapshots: Sample counts with scores, ascending; the last one is the number of samples.
        scores: "estimator/snapshot/structure" -> float32 [U], layers one after another.
        tensors: (layer, name, elements) of every tracked tensor.
        batch_statistics: float32 [batches, P, S], of each batch's own gradient (NaN where several went through the
            device together); empty without weight gradients.
        accumulated_statistics: snapshot -> float64 [P, S], of the accumulated gradient.
        prior_loss: float64 [n, L, 3], loss rise in nats per sample when (layer, attention, MLP) is bypassed.
        prior_cosine: float64 [n, L, 3], 1 - cos of the residual stream before and after.
        prior_gate: float64 [N, L, 3], first-order estimate of the loss rise from the same backward pass.
        facts: Counts, timings, skipped batches, what was seen.
    """

    level: Level
    snapshots: tuple[int, ...]
    scores: dict[str, torch.Tensor]
    tensors: tuple[tuple[int, str, int], ...] = ()
    batch_statistics: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, len(STATISTICS)))
    accumulated_statistics: dict[int, torch.Tensor] = field(default_factory=dict)
    prior_loss: torch.Tensor | None = None
    prior_cosine: torch.Tensor | None = None
    prior_gate: torch.Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def score(self, estimator: str, samples: int, structure: Structure) -> torch.Tensor:
        """Scores [U] of one estimator after `samples` samples."""
        return self.scores[f"{estimator}/{samples}/{structure}"]

    def has(self, level: Level, samples: int, prior: str, share: float) -> bool:
        """Whether a run with these needs can be served without any forward or backward pass."""
        if samples not in self.snapshots or not self.level.serves(level):
            return False
        if prior == "none":
            return True
        values = self.priors(prior)
        return values is not None and (prior == "gate" or len(values) >= prior_samples(samples, share))

    def priors(self, kind: str) -> torch.Tensor | None:
        """Priors of one kind [n, L, 3], or None where they were not measured."""
        return {"loss": self.prior_loss, "cosine": self.prior_cosine, "gate": self.prior_gate}[kind]

    def prior(self, kind: str, samples: int, share: float) -> torch.Tensor:
        """Mean prior over the samples that belong to a run of `samples` samples. float64 [L, 3]."""
        values = self.priors(kind)
        assert values is not None
        return values[: samples if kind == "gate" else prior_samples(samples, share)].mean(0)

    def layer_gradients(self, samples: int) -> dict[int, dict[str, float]]:
        """Per layer: statistics of the accumulated gradient after `samples` samples, weighted by tensor size."""
        if samples not in self.accumulated_statistics:
            return {}
        rows = self.accumulated_statistics[samples]
        result: dict[int, dict[str, float]] = {}
        for layer in sorted({item[0] for item in self.tensors}):
            members = [i for i, item in enumerate(self.tensors) if item[0] == layer]
            result[layer] = layer_statistics(rows[members], [self.tensors[i][2] for i in members])
        return result

    def save(self, folder: Path) -> None:
        """Write the capture; the folder appears whole or not at all."""
        tensors = dict(self.scores) | {"batch_statistics": self.batch_statistics}
        tensors |= {f"accumulated/{n}": value for n, value in self.accumulated_statistics.items()}
        tensors |= {
            f"prior/{kind}": value
            for kind in ("loss", "cosine", "gate")
            if (value := self.priors(kind)) is not None
        }
        with new_directory(folder) as temporary:
            with disk_errors():
                save_file({name: value.contiguous() for name, value in tensors.items()}, temporary / TENSORS)
            facts = {
                "level": int(self.level),
                "snapshots": self.snapshots,
                "tensors": self.tensors,
                "statistics": STATISTICS,
                "blocks": BLOCKS,
                "digest": file_digest(temporary / TENSORS),
                "facts": self.facts,
            }
            write_json(temporary / FACTS, facts)

    @classmethod
    def load(cls, folder: Path) -> "Capture":
        """Read a capture.

        Raises:
            StorageError: A file is missing or cut short.
        """
        raw = read_json(folder / FACTS)
        path = folder / TENSORS
        try:
            if file_digest(path) != raw["digest"]:
                raise ValueError(f"{TENSORS} is not the file that was written")
            return cls._parse(raw, load_file(path))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"the cached capture {folder} is damaged ({error}): delete this folder and run the same "
                "command again"
            ) from error

    @classmethod
    def _parse(cls, raw: dict[str, Any], tensors: dict[str, torch.Tensor]) -> "Capture":
        return cls(
            level=Level(raw["level"]),
            snapshots=tuple(raw["snapshots"]),
            scores={name: value for name, value in tensors.items() if name.count("/") == 2},
            tensors=tuple((int(a), str(b), int(c)) for a, b, c in raw["tensors"]),
            batch_statistics=tensors["batch_statistics"],
            accumulated_statistics={
                int(k.split("/")[1]): v for k, v in tensors.items() if k.startswith("accumulated/")
            },
            prior_loss=tensors.get("prior/loss"),
            prior_cosine=tensors.get("prior/cosine"),
            prior_gate=tensors.get("prior/gate"),
            facts=raw["facts"],
        )


def prior_samples(samples: int, share: float) -> int:
    """How many samples measure priors for a run of `samples` samples (the study: one fifth)."""
    return max(1, int(samples * share))
