"""One record as one flat row of the results frame."""

import math
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

from analysis.protocol import flatten, protocol_id, protocol_of
from analysis.runset import FAILED, GRADIENTS, VALID
from eval.config import METRIC, TASKS, RunConfig
from eval.record import Metric, RunRecord

STATISTICS = (*GRADIENTS, "grad_std_ratio", "grad_max_ratio")
NOT_FACTORS = ("model.", "eval.")
SPEED_SUFFIXES = ("tokens/s", "tokens_per_s", "tok/s")
"""A metric whose name ends so is a speed; the first found fills column `speed`."""

_protocols: dict[str, tuple[str, dict[str, Any]]] = {}


def row_of(record: RunRecord, source: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Flatten one record; returns the row, its protocol id and its protocol."""
    name, protocol = _protocol(record)
    config = record.config
    row: dict[str, Any] = {
        "run_id": record.run_id,
        "identity": record.run_id,
        "source": source,
        "kind": record.kind,
        "state": VALID if record.status == "done" else FAILED,
        "reason": None if record.error is None else _failure(record),
        "model": model_name(config),
        "method": "dense" if record.kind == "dense" else _get(config, "method", "name"),
        "calibration": _get(config, "calibration", "name"),
        "protocol": name,
        "started": record.provenance.get("started"),
        "seq_len": _number(_get(config, "taylor", "seq_len")),
        "num_samples": _number(_get(config, "taylor", "num_samples")),
        "batch_size": _number(_get(config, "taylor", "batch_size")),
        "ratio": _number(_get(config, "budget", "ratio")),
        "seed": _number(config.get("seed")),
        "elapsed_s": _number(record.timings.get("total", sum(record.timings.values()) or None)),
        "memory_bytes": _number(record.memory.get("device") or record.memory.get("host")),
    }
    row |= _config_columns(config)
    row |= _metric_columns(record.metrics)
    if record.parameters is not None:
        row["params_before"] = float(record.parameters.before)
        row["params_after"] = float(record.parameters.after)
        row["pruning_ratio"] = record.parameters.ratio
    for key in STATISTICS:
        row[key] = _number(record.statistics.get(key))
    extreme = record.statistics.get("extreme_layers")
    row["extreme_layers"] = float(len(extreme)) if isinstance(extreme, list) else _number(extreme)
    mean = record.metrics.get("acc_mean")
    if row["state"] == VALID and (mean is None or mean.value is None):
        row["reason"] = f"acc_mean: {mean.note if mean is not None and mean.note else '-'}"
    return row, name, protocol


def layer_values(record: RunRecord) -> np.ndarray | None:
    """Per layer: index, kept shares of attention and MLP (0..1), gradient mean, norm, std and max; [L, 7]."""
    if not record.layers:
        return None
    nan = math.nan
    return np.array([
        (
            layer.layer,
            layer.kept_kv_groups / layer.kv_groups if layer.kv_groups else nan,
            layer.kept_channels / layer.channels if layer.channels else nan,
            nan if layer.grad_mean is None else layer.grad_mean,
            nan if layer.grad_norm is None else layer.grad_norm,
            nan if layer.grad_std is None else layer.grad_std,
            nan if layer.grad_max is None else layer.grad_max,
        )
        for layer in record.layers
    ], dtype=np.float64)  # fmt: skip


def model_name(config: dict[str, Any]) -> str:
    """What the reports call the model: its config name, or the folder name of `model=local`."""
    name = str(_get(config, "model", "name") or "local")
    path = _get(config, "model", "path")
    return PurePath(str(path)).name or name if name == "local" and path else name


@cache
def local_keys() -> frozenset[str]:
    """Dotted config keys that do not change a result (where a run happens, where files go)."""
    found: set[str] = set()

    def walk(model: type[BaseModel], prefix: str) -> None:
        for key, field in model.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") is False:
                found.add(prefix + key)
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                walk(inner, f"{prefix}{key}.")

    walk(RunConfig, "")
    return frozenset(found)


def _protocol(record: RunRecord) -> tuple[str, dict[str, Any]]:
    """Protocol and id; grids repeat few protocols, so the digest is taken once for each."""
    protocol = protocol_of(record.card, record.config)
    key = repr(protocol)
    if key not in _protocols:
        _protocols[key] = (protocol_id(protocol), protocol)
    return _protocols[key]


def _config_columns(config: dict[str, Any]) -> dict[str, Any]:
    local = local_keys()
    return {
        f"config.{key}": repr(value) if isinstance(value, list | dict) else value
        for key, value in flatten(config).items()
        if key not in local and not key.startswith(NOT_FACTORS) and not key.endswith("name")
    }


def _metric_columns(metrics: dict[str, Metric]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, metric in metrics.items():
        row[f"metric.{name}"] = metric.value
        if name.endswith(SPEED_SUFFIXES):
            row.setdefault("speed", metric.value)
    for task in TASKS:
        metric = metrics.get(f"{task}/{METRIC[task]}")
        if metric is not None:
            row[f"acc_{task}"], row[f"se_{task}"], row[f"n_{task}"] = metric.value, metric.stderr, metric.n
    mean = metrics.get("acc_mean")
    if mean is not None:
        row["acc_mean"], row["acc_mean_se"] = mean.value, mean.stderr
    return row


def _failure(record: RunRecord) -> str:
    error = record.error
    assert error is not None
    message = error.message.strip().splitlines()
    return f"{error.stage}: {error.type}: {message[0][:200] if message else ''}"


def _get(config: dict[str, Any], *keys: str) -> Any:
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float:
    if value is None or isinstance(value, str | list | dict):
        return math.nan
    return float(value)
