"""What a command line asks for, before anything is loaded: every setting with its cells, and its folder."""

from pathlib import Path
from typing import Any

from secateur.eval.speed.config import NO_PART, SpeedConfig, settings, subject
from secateur.eval.speed.journal import Sweep, Variant
from secateur.eval.speed.order import cells
from secateur.pruning.errors import ConfigError
from secateur.pruning.files import digest
from secateur.pruning.identity import model_fingerprint
from secateur.pruning.models.loading import outline
from secateur.pruning.provenance import now, provenance

FOLDER = "bench"


def plan_sweep(configs: list[SpeedConfig], swept: tuple[str, ...]) -> Sweep:
    """What a command line asks for: every setting with its cells.

    Raises:
        ConfigError: No cell fits into a model's context.
        ModelError: A model is missing or of an unknown family.
    """
    found: list[Variant] = []
    for config in configs:
        shell: Any = outline(config.model).model
        context = getattr(shell.config, "max_position_embeddings", None)
        grid, left = cells(config.bench, context)
        if not grid:
            raise ConfigError(
                f"{config.model.name}: every cell of bench.n_prompt x bench.n_gen is longer than its context of "
                f"{context} tokens; ask for less, or bench.beyond_context=true"
            )
        found.append(
            Variant(
                subject=subject(config),
                model=config.model.name,
                settings=settings(config),
                cells=tuple(c.key for c in grid),
                left_out=tuple(c.key for c in left),
                context=context,
            )
        )
    first = configs[0].bench
    return Sweep(
        name=first.name, started=now(), repetitions=first.repetitions, swept=swept, variants=tuple(found),
        provenance=provenance(),
    )  # fmt: skip


def sweep_folder(configs: list[SpeedConfig]) -> Path:
    """The folder of a sweep: named by all that is asked, by the models' contents and by the machine."""
    facts = provenance()
    machine = [facts[k] for k in ("machine", "processor", "cpus", "devices")]
    asked = [
        [
            c.model_dump(mode="json", exclude=NO_PART),
            model_fingerprint(c.model),
        ]
        for c in configs
    ]
    code = digest([asked, machine, facts["packages"]["torch"], facts["packages"]["transformers"]], 10)
    return Path(configs[0].out) / FOLDER / f"{configs[0].bench.name}-{code}"
