"""The name of a run: readable sizes and a digest of everything that changes its result. No torch here."""

from collections.abc import Callable, Iterable
from pathlib import Path

from secateur.eval.config import EvalConfig, RunConfig
from secateur.pruning.config import (
    BudgetConfig,
    CalibrationConfig,
    GuardConfig,
    MethodConfig,
    ModelConfig,
    TaylorConfig,
    config_digest,
)
from secateur.pruning.identity import calibration_fingerprint, model_fingerprint, model_folder
from secateur.pruning.naming import safe_name

DENSE = MethodConfig(name="dense", estimator="random")


def dense_config(config: RunConfig) -> RunConfig:
    """The baseline that belongs to a run: same model and evaluation, nothing removed."""
    return config.model_copy(
        update={
            "method": DENSE,
            "budget": BudgetConfig(ratio=0.0),
            "guard": GuardConfig(),
            "taylor": TaylorConfig(),
            "calibration": CalibrationConfig(name="none", source="world"),
            "seed": 0,
            "save_model": False,
        }
    )


def is_dense(config: RunConfig) -> bool:
    """Whether nothing is removed."""
    return config.budget.ratio == 0.0


def run_id(config: RunConfig) -> str:
    """Name of the run folder. Equal for equal results-to-be: places, devices and labels do not enter.

    Raises:
        ModelError: The model folder does not exist.
        DataError: The calibration or evaluation data does not exist.
    """
    if is_dense(config):
        config = dense_config(config)
    facts = {"model": model_identity(config.model), "eval": evaluation_fingerprint(config.eval)}
    if not is_dense(config):
        facts["calibration"] = calibration_identity(config.calibration)
    # contents stand for places: the same file elsewhere is the same run
    portable = config.model_copy(
        update={
            "model": config.model.model_copy(update={"path": "digest"}),
            "calibration": config.calibration.model_copy(update={"path": "digest"}),
            "eval": config.eval.model_copy(
                update={
                    "data_dir": None,
                    "tasks_path": None,
                    "ppl": config.eval.ppl.model_copy(update={"text": None}),
                }
            ),
        }
    )
    code, model = config_digest(portable, **facts), safe_name(config.model.name)
    if is_dense(config):
        return f"{model}-dense-{code}"
    size = f"{config.taylor.seq_len}x{config.taylor.num_samples}"
    return f"{model}-{safe_name(config.method.name)}-{config.budget.ratio:g}-{size}-{code}"


def model_identity(config: ModelConfig) -> str:
    """Digest of a model, taken once per process and version of its files: a grid asks at every point.

    Raises:
        ModelError: The path looks like a folder but does not exist.
    """
    folder = model_folder(config)
    files = _versions(folder.iterdir() if folder is not None else ())
    return _once(config, files, lambda: model_fingerprint(config))


def calibration_identity(config: CalibrationConfig) -> str:
    """Digest of a calibration text, taken once per process and version of its file.

    Raises:
        DataError: The file does not exist.
    """
    files = _versions([Path(config.path or "").expanduser()] if config.source == "file" else ())
    return _once(config, files, lambda: calibration_fingerprint(config))


Versions = tuple[tuple[str, int, int], ...]
"""Path, size and time of last change (ns) of files."""

_known: dict[tuple[ModelConfig | CalibrationConfig, Versions], str] = {}


def _versions(paths: Iterable[Path]) -> Versions:
    stats = {str(path.resolve()): path.stat() for path in paths if path.is_file()}
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in sorted(stats.items()))


def _once(config: ModelConfig | CalibrationConfig, files: Versions, take: Callable[[], str]) -> str:
    if (config, files) not in _known:
        _known[config, files] = take()
    return _known[config, files]


def evaluation_fingerprint(config: EvalConfig) -> str:
    """Digest of the data that an evaluation reads.

    Raises:
        DataError: A local file or folder does not exist.
    """
    from secateur.eval.data import data_digest, file_identity, own_text

    text = file_identity(own_text(config)) if config.ppl.text else ""
    return f"{data_digest(config)}-{text}"
