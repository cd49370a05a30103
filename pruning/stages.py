"""The stages of an iterative schedule, kept by content: a killed or a longer run goes on from the last one.

A stage is named by everything that led to it (model, text, method, the ratios so far), so that trajectories share their
beginnings. A stage is a plan, and the refitted output projections where the method changes weights.
"""

import logging
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from secateur.pruning.capture.workers import Workers
from secateur.pruning.config import PruneConfig, identity
from secateur.pruning.config_method import ScheduleConfig
from secateur.pruning.errors import StorageError
from secateur.pruning.files import digest, new_directory
from secateur.pruning.importance.scores import needs_capture
from secateur.pruning.leaks import Excluded
from secateur.pruning.models.adapter import STRUCTURES, linear
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.models.modeling_pruned import give_bias
from secateur.pruning.obtain import cache_folder, capture_key
from secateur.pruning.plan import PruningPlan
from secateur.pruning.surgery import prune
from secateur.pruning.tensors import disk_errors

log = logging.getLogger(__name__)
PLAN, WEIGHTS = "plan.json", "weights.safetensors"


class Stages:
    """The stages of one trajectory: their names, what is stored of them, and how they are stored."""

    def __init__(
        self, config: PruneConfig, dense: LoadedModel, exclude: Excluded, ratios: tuple[float, ...]
    ) -> None:
        self.folder = cache_folder(config) / "stages"
        self.dense, self.stored = dense, config.method.schedule.kind == "iterative"
        self.weights = config.method.changes_weights
        method = config.method.model_copy(update={"schedule": ScheduleConfig()})
        text = capture_key(config, dense, exclude) if needs_capture(method) else dense.fingerprint
        sizes = [config.taylor.num_samples, config.capture.prior_share, config.seed, config.budget.of]
        key = digest([text, identity(method), identity(config.guard), sizes])
        self.keys: list[str] = []
        for ratio in ratios:
            key = digest([key, ratio])
            self.keys.append(key)

    def resume(self) -> tuple[int, PruningPlan | None]:
        """Bring the dense model, in place, to the last stage that is stored.

        Returns:
            How many cuts that stage has behind it, and its plan.

        Raises:
            StorageError: What is stored is damaged.
        """
        for number in range(len(self.keys) if self.stored else 0, 0, -1):
            place = self.folder / self.keys[number - 1]
            if (place / PLAN).exists():
                plan = PruningPlan.load(place / PLAN)
                prune(self.dense.model, self.dense.adapter, plan)
                if self.weights:
                    self._load(number)
                log.info("continuing behind cut %d of %d, from %s", number, len(self.keys), place)
                return number, plan
        return 0, None

    def keep(self, number: int, plan: PruningPlan) -> None:
        """Store the model as it is behind cut `number` (1 is the first)."""
        place = self.folder / self.keys[number - 1]
        workers = Workers()
        if self.stored and workers.main and not place.exists():
            with new_directory(place) as temporary:
                plan.save(temporary / PLAN)
                if self.weights:
                    tensors = {
                        f"{name}.{part}": value.contiguous()
                        for name, module in self._outputs()
                        for part, value in module.state_dict().items()
                    }
                    with disk_errors():
                        save_file(tensors, temporary / WEIGHTS)
        workers.wait()

    def current(self, number: int) -> LoadedModel:
        """The model behind cut `number`, with its own layout and name."""
        if number == 0:
            return self.dense
        layout = read_layout(self.dense.model, self.dense.adapter)
        return replace(self.dense, layout=layout, fingerprint=self.keys[number - 1])

    def _outputs(self) -> list[tuple[str, torch.nn.Linear]]:
        """The output projections that the model has, by layer and structure."""
        adapter = self.dense.adapter
        return [
            (f"{index}.{structure}", module)
            for index, layer in enumerate(adapter.decoder_layers(self.dense.model))
            for structure in STRUCTURES
            if (module := linear(layer, adapter.output(structure))) is not None
        ]

    def _load(self, number: int) -> None:
        path = self.folder / self.keys[number - 1] / WEIGHTS
        try:
            stored: dict[str, Any] = load_file(path)
            with torch.no_grad():
                for name, module in self._outputs():
                    module.weight.copy_(stored[f"{name}.weight"])
                    if f"{name}.bias" in stored:
                        give_bias(module)
                        module.bias.copy_(stored[f"{name}.bias"])
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise StorageError(
                f"{path} is damaged ({error}): delete its folder and run the same command again"
            ) from error
