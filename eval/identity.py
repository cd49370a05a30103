"""The name of a run: readable sizes and a digest of everything that changes its result. No torch here."""

from pathlib import Path

from eval.config import EvalConfig, RunConfig
from pruning.config import (
    BudgetConfig,
    CalibrationConfig,
    GuardConfig,
    MethodConfig,
    TaylorConfig,
    config_digest,
)
from pruning.errors import DataError
from pruning.files import file_digest
from pruning.identity import calibration_fingerprint, model_fingerprint

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
    facts = {"model": model_fingerprint(config.model), "eval": evaluation_fingerprint(config.eval)}
    if not is_dense(config):
        facts["calibration"] = calibration_fingerprint(config.calibration)
    # contents stand for places: the same file elsewhere is the same run
    portable = config.model_copy(
        update={
            "model": config.model.model_copy(update={"path": "digest"}),
            "calibration": config.calibration.model_copy(update={"path": "digest"}),
            "eval": config.eval.model_copy(
                update={"data_dir": None, "ppl": config.eval.ppl.model_copy(update={"text": None})}
            ),
        }
    )
    code = config_digest(portable, **facts)
    if is_dense(config):
        return f"{config.model.name}-dense-{code}"
    size = f"{config.taylor.seq_len}x{config.taylor.num_samples}"
    return f"{config.model.name}-{config.method.name}-{config.budget.ratio:g}-{size}-{code}"


def evaluation_fingerprint(config: EvalConfig) -> str:
    """Digest of the data that an evaluation reads.

    Raises:
        DataError: A local file or folder does not exist.
    """
    from eval.data import data_digest

    text = ""
    if config.ppl.text:
        path = Path(config.ppl.text).expanduser()
        if not path.is_file():
            raise DataError(
                f"eval.ppl.text={config.ppl.text}: no such file; give a .txt, .jsonl or .parquet file"
            )
        text = file_digest(path)
    return f"{data_digest(config)}-{text}"
