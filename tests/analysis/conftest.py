"""Synthetic run records of the real schema, with known structure."""

import copy
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pytest

from secateur.eval.config import METRIC, TASKS, RunConfig
from secateur.eval.record import Failure, RunRecord, write_record

METHODS = ("blockwise", "layerwise", "taylor")
LENGTHS = (16, 32, 64)
SAMPLES = (128, 256)
QUESTIONS = 200


def base_config(model: str, method: str, seq_len: int, num_samples: int, seed: int) -> dict[str, Any]:
    raw = {
        "model": {"name": model, "path": f"models/{model}"},
        "calibration": {"name": "world", "source": "world"},
        "method": {"name": method, "prior": {"taylor": "none"}.get(method, "loss")},
        "taylor": {"seq_len": seq_len, "num_samples": num_samples},
        "seed": seed,
    }
    return RunConfig.model_validate(raw).model_dump(mode="json")


def base_card(**changes: Any) -> dict[str, Any]:
    card = {
        "tasks": {
            task: {
                "metric": METRIC[task],
                "version": 1.0,
                "num_fewshot": 0,
                "limit": None,
                "data": f"digest-{task}",
            }
            for task in TASKS
        },
        "perplexity": ["wikitext2@2048"],
        "harness": {"lm_eval": "0.4.13", "backend": "fast"},
        "calibration": "world",
        "seed": 0,
        "parameters_kept": 800,
    }
    return card | changes


class MakeRecord(Protocol):
    def __call__(self, **options: Any) -> RunRecord: ...


def build_record(
    model: str = "alpha",
    method: str = "taylor",
    seq_len: int = 64,
    num_samples: int = 128,
    seed: int = 0,
    acc: float | None = None,
    ppl: float | None = 12.0,
    kind: str = "pruned",
    status: str = "done",
    num_layers: int = 4,
    card: dict[str, Any] | None = None,
    shift: dict[str, float] | None = None,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """One record; every task's accuracy is `acc` plus its `shift`."""
    value = 0.5 if acc is None else acc
    tasks = {task: value + (shift or {}).get(task, 0.0) for task in TASKS}
    metrics: dict[str, Any] = {}
    for task, share in tasks.items():
        se = (share * (1 - share) / (QUESTIONS - 1)) ** 0.5
        for kind_of in ("acc", "acc_norm"):
            metrics[f"{task}/{kind_of}"] = {
                "value": share if kind_of == METRIC[task] else 0.1, "stderr": se, "n": QUESTIONS,
                "unit": "accuracy",
            }  # fmt: skip
    metrics["acc_mean"] = {
        "value": sum(tasks.values()) / len(tasks),
        "stderr": None,
        "n": None,
        "unit": "accuracy",
    }
    if ppl is not None:
        metrics["wikitext2@2048"] = {"value": ppl, "unit": "perplexity", "higher_is_better": False}
    run_config = copy.deepcopy(config or base_config(model, method, seq_len, num_samples, seed))
    name = f"{model}-{method}-{seq_len}x{num_samples}-s{seed}" if kind == "pruned" else f"{model}-dense"
    raw: dict[str, Any] = {
        "run_id": name,
        "kind": kind,
        "status": status,
        "config": run_config,
        "card": base_card() if card is None else card,
        "metrics": metrics,
        "parameters": {
            "before": 1_000_000, "after": 800_000 if kind == "pruned" else 1_000_000,
            "ratio": 0.2 if kind == "pruned" else 0.0, "decoder_before": 900_000, "decoder_after": 700_000,
        },
        "layers": [
            {
                "layer": index, "kv_groups": 4, "kept_kv_groups": 4 - index % 2, "channels": 64,
                "kept_channels": 64 - 12 * index, "extreme": index == num_layers - 1, "grad_mean": 0.1 / (index + 1),
                "grad_norm": 10.0 / (index + 1), "grad_std": 0.2, "grad_max": 1.0,
            }
            for index in range(num_layers)
        ] if kind == "pruned" else [],
        "statistics": {
            "grad_mean_ratio": 4.0, "grad_norm_ratio": 4.0, "grad_std_ratio": 1.0, "grad_max_ratio": 1.0,
            "grad_mean_range": 0.075, "grad_norm_range": 7.5, "extreme_layers": [num_layers - 1],
        },
        "timings": {"capture": 1.0, "evaluate": 2.0},
        "provenance": {"started": "2026-01-01T00:00:00"},
    }  # fmt: skip
    if kind == "dense":
        raw["statistics"] = {}
    return RunRecord.model_validate(raw | changes)


def failed_record(**options: Any) -> RunRecord:
    record = build_record(**options)
    failure = Failure(stage="evaluate", type="OutOfMemoryError", message="CUDA out of memory\nmore")
    return record.model_copy(update={"status": "failed", "metrics": {}, "error": failure})


def grid_records(
    models: tuple[str, ...] = ("alpha", "beta"), seeds: tuple[int, ...] = (0,)
) -> list[RunRecord]:
    """A full grid with a strong method and length effect that is mirrored on the second model, plus dense runs."""
    rng = np.random.default_rng(1)
    records: list[RunRecord] = []
    for place, model in enumerate(models):
        records.append(build_record(model=model, kind="dense", acc=0.7, ppl=6.0))
        for m, method in enumerate(METHODS):
            for length, seq_len in enumerate(LENGTHS):
                for num_samples in SAMPLES:
                    for seed in seeds:
                        sign = 1 if place == 0 else -1
                        value = 0.5 + sign * (0.03 * m + 0.02 * length) + rng.normal(0, 0.002)
                        records.append(build_record(
                            model=model, method=method, seq_len=seq_len, num_samples=num_samples, seed=seed,
                            acc=float(value), ppl=float(20 - 20 * (value - 0.5) + rng.normal(0, 0.1)),
                            shift={"boolq": float(rng.normal(0, 0.02)), "piqa": float(rng.normal(0, 0.02))},
                            statistics={
                                "grad_mean_ratio": float(3 + length + rng.normal(0, 0.1)),
                                "grad_norm_ratio": None if (m, length) == (0, 2) else float(5 + m),
                                "grad_mean_range": 0.1, "grad_norm_range": float(rng.normal()),
                                "extreme_layers": list(range(m)),
                            },
                        ))  # fmt: skip
    return records


@pytest.fixture
def make_record() -> MakeRecord:
    return build_record


@pytest.fixture
def make_failed() -> MakeRecord:
    return failed_record


@pytest.fixture(scope="session")
def records() -> list[RunRecord]:
    return grid_records()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, records: list[RunRecord]) -> Path:
    """A runs directory with answers for every run, one failure and one record that is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    for record in records:
        write_record(folder / record.run_id, record)
        write_answers(folder / record.run_id, record)
    write_record(folder / "broken", failed_record(seed=9).model_copy(update={"run_id": "broken"}))
    (folder / "torn").mkdir()
    (folder / "torn" / "record.json").write_text('{"run_id": "torn", "kind":')
    return folder


def write_answers(folder: Path, record: RunRecord) -> None:
    """Answers whose mean is the record's accuracy; runs share easy and hard questions."""
    parts: list[pd.DataFrame] = []
    for place, task in enumerate(TASKS):
        share = record.metrics[f"{task}/{METRIC[task]}"].value
        assert share is not None
        ease = np.random.default_rng(place).permutation(QUESTIONS)
        right = (ease < round(share * QUESTIONS)).astype(int)
        other = np.zeros(QUESTIONS, dtype=int)
        acc, norm = (right, other) if METRIC[task] == "acc" else (other, right)
        parts.append(pd.DataFrame({"task": task, "question": range(QUESTIONS), "acc": acc, "acc_norm": norm}))
    pd.concat(parts, ignore_index=True).to_parquet(folder / "answers.parquet")


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory, run_folder: Path) -> dict[str, Path]:
    """The full reports of `run_folder` in both languages."""
    from secateur.analysis.report import write_reports

    out = tmp_path_factory.mktemp("reports")
    for lang in ("en", "zh"):
        write_reports(run_folder, out / lang, lang, today="2026-01-01")
    return {lang: out / lang for lang in ("en", "zh")}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference folder beside the checkout, or the one that SECATEUR_SHARED names."""
    default = Path(__file__).parents[2].parent / "shared"
    folder = Path(os.environ.get("SECATEUR_SHARED", default))
    if not (folder / "reference" / "tables" / "llama.csv").is_file():
        pytest.skip(f"no reference tables in {folder} (set SECATEUR_SHARED)")
    return folder
