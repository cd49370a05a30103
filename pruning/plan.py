"""`PruningPlan`: which units of which layer stay. The base model and this plan ARE the pruned model."""

import base64
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.pruning.errors import StorageError
from secateur.pruning.files import read_json, write_json
from secateur.pruning.models.adapter import STRUCTURES, Structure
from secateur.pruning.models.layout import Layout

PLAN_SCHEMA = 1


@dataclass(frozen=True)
class LayerPlan:
    """Kept units of one decoder layer of the dense model.

    Attributes:
        kv_groups: Units before the cut.
        channels: Units before the cut.
        kept_kv_groups: Sorted indices.
        kept_channels: Sorted indices.
    """

    kv_groups: int
    channels: int
    kept_kv_groups: tuple[int, ...]
    kept_channels: tuple[int, ...]

    def units(self, structure: Structure) -> int:
        """Units of a structure before the cut."""
        return self.kv_groups if structure == "attention" else self.channels

    def kept(self, structure: Structure) -> tuple[int, ...]:
        """Sorted indices of a structure's units that stay."""
        return self.kept_kv_groups if structure == "attention" else self.kept_channels

    @property
    def attention_cut(self) -> float:
        """Share of the KV groups removed, in [0, 1]."""
        return 1 - len(self.kept_kv_groups) / self.kv_groups if self.kv_groups else 0.0

    @property
    def mlp_cut(self) -> float:
        """Share of the channels removed, in [0, 1]."""
        return 1 - len(self.kept_channels) / self.channels if self.channels else 0.0


@dataclass(frozen=True)
class PruningPlan:
    """The cut of a whole model.

    Attributes:
        layers: One entry per layer of the dense model.
        fingerprint: Of the model that the plan was made for.
        target: Parameters that the budget asked to remove.
        removed: Parameters that the plan removes.
        total_parameters: Of the dense model.
        decoder_parameters: Of the dense model's decoder layers.
        decided: How it was decided: the method, budget and guard configs.
        guards: Which guard rails bound, in words with numbers.
    """

    layers: tuple[LayerPlan, ...]
    fingerprint: str
    target: int
    removed: int
    total_parameters: int
    decoder_parameters: int
    decided: dict[str, Any] = field(default_factory=dict)
    guards: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Removed share of all parameters, measured."""
        return self.removed / self.total_parameters

    def extreme_layers(self, share: float = 0.5) -> tuple[int, ...]:
        """Layers that lose more than `share` of their MLP or of their attention."""
        return tuple(
            i for i, layer in enumerate(self.layers) if max(layer.attention_cut, layer.mlp_cut) > share
        )

    def extreme_mlp_layers(self, share: float = 0.5) -> tuple[int, ...]:
        """Layers that lose more than `share` of their MLP (the study's count; attention ignored)."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.mlp_cut > share)

    def since(self, earlier: "PruningPlan") -> "PruningPlan":
        """The same cut as seen by a model that `earlier` has cut already: indices and layers of what is left there.

        Raises:
            KeyError: A unit that is kept here was removed there.
        """
        layers: list[LayerPlan] = []
        for before, after in zip(earlier.layers, self.layers, strict=True):
            if not (before.kept_kv_groups or before.kept_channels):
                continue
            places = {s: {unit: place for place, unit in enumerate(before.kept(s))} for s in STRUCTURES}
            groups, channels = (tuple(places[s][unit] for unit in after.kept(s)) for s in STRUCTURES)
            layers.append(LayerPlan(len(before.kept_kv_groups), len(before.kept_channels), groups, channels))
        return replace(self, layers=tuple(layers), removed=self.removed - earlier.removed)

    def save(self, path: Path) -> None:
        """Write the plan as JSON (kept units as bit masks, some KB per model)."""
        raw = asdict(self)
        raw["schema_version"] = PLAN_SCHEMA
        raw["layers"] = [
            {
                "kv_groups": _pack(layer.kept_kv_groups, layer.kv_groups),
                "channels": _pack(layer.kept_channels, layer.channels),
            }
            for layer in self.layers
        ]
        write_json(path, raw)

    @classmethod
    def load(cls, path: Path) -> "PruningPlan":
        """Read a plan.

        Raises:
            StorageError: The file is missing, damaged or of another schema.
        """
        raw: dict[str, Any] = read_json(path)
        try:
            if raw.pop("schema_version") != PLAN_SCHEMA:
                raise KeyError("schema_version")
            layers = tuple(
                LayerPlan(
                    item["kv_groups"]["of"],
                    item["channels"]["of"],
                    _unpack(item["kv_groups"]),
                    _unpack(item["channels"]),
                )
                for item in raw.pop("layers")
            )
            raw["guards"] = tuple(raw["guards"])
            return cls(layers=layers, **raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"{path} is not a pruning plan of schema {PLAN_SCHEMA} ({error}). Delete it and run again."
            ) from error


def whole(layout: Layout, fingerprint: str) -> PruningPlan:
    """The plan that removes nothing."""
    everything = tuple(
        LayerPlan(x.kv_groups, x.channels, tuple(range(x.kv_groups)), tuple(range(x.channels)))
        for x in layout.layers
    )
    return PruningPlan(everything, fingerprint, 0, 0, layout.total_parameters, layout.decoder_parameters)


def _pack(kept: tuple[int, ...], of: int) -> dict[str, Any]:
    """Kept indices as a bit mask: bit i of byte i // 8, most significant first, base64."""
    mask = np.zeros(of, dtype=bool)
    mask[list(kept)] = True
    return {"kept": len(kept), "of": of, "bits": base64.b64encode(np.packbits(mask).tobytes()).decode()}


def _unpack(packed: dict[str, Any]) -> tuple[int, ...]:
    bits = np.frombuffer(base64.b64decode(packed["bits"]), dtype=np.uint8)
    kept = np.flatnonzero(np.unpackbits(bits, count=packed["of"]))
    if len(kept) != packed["kept"]:
        raise ValueError("bit mask and count disagree")
    return tuple(int(i) for i in kept)
