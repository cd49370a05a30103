"""One record as one flat row of the results frame."""

import math
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

from secateur.analysis.model_names import Origin
from secateur.analysis.protocol import flatten, protocol_id, protocol_of
from secateur.analysis.runset import FAILED, GRADIENTS, VALID
from secateur.eval.config import METRIC, TASKS, RunConfig
from secateur.eval.record import SCHEMA
from secateur.pruning.errors import DataError

STATISTICS = (*GRADIENTS, "grad_std_ratio", "grad_max_ratio")
NOT_FACTORS = ("model.", "eval.")
SPEED_SUFFIXES = ("tokens/s", "tokens_per_s", "tok/s")
"""A metric whose name ends so is a speed; the first found fills column `speed`."""

KINDS, STATUSES = ("dense", "pruned"), ("done", "failed")
FIELDS: tuple[tuple[str, type], ...] = (
    ("run_id", str), ("config", dict), ("card", dict), ("metrics", dict), ("layers", list), ("statistics", dict),
    ("timings", dict), ("memory", dict), ("provenance", dict),
)  # fmt: skip
LAYER_FIELDS = (
    "layer", "kept_kv_groups", "kv_groups", "kept_channels", "channels", "grad_mean", "grad_norm",
    "grad_std", "grad_max",
)  # fmt: skip

_protocols: dict[str, tuple[str, dict[str, Any]]] = {}


def check(raw: Any) -> dict[str, Any]:
    """Refuse what is not a run record; fields that this version does not know are let through.

    Raises:
        DataError: Naming the first field that is missing or of the wrong kind.
    """
    if not isinstance(raw, dict):
        raise DataError("is not a JSON object")
    for name, allowed in (("kind", KINDS), ("status", STATUSES), ("schema_version", (SCHEMA,))):
        if raw.get(name, SCHEMA) not in allowed:
            raise DataError(f"{name}: {raw.get(name)!r} is not one of {', '.join(map(str, allowed))}")
    for name, kind in FIELDS:
        if not isinstance(raw.get(name, kind()), kind):
            raise DataError(f"{name}: is not of type {kind.__name__}")
    for name in ("run_id", "config", "card", "kind", "status"):
        if name not in raw:
            raise DataError(f"{name}: Field required")
    for name, metric in raw.get("metrics", {}).items():
        value = metric.get("value", "") if isinstance(metric, dict) else ""
        if value is not None and not isinstance(value, float | int):
            raise DataError(f"metrics.{name}.value: is not a number")
    return raw


def row_of(raw: dict[str, Any], source: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Flatten one record (as `check` accepts it); returns the row, its protocol id and its protocol."""
    name, protocol = _protocol(raw)
    config = raw["config"]
    timings, memory = raw.get("timings") or {}, raw.get("memory") or {}
    origin = origin_of(raw)
    row: dict[str, Any] = {
        "run_id": raw["run_id"],
        "identity": raw["run_id"],
        "source": source,
        "kind": raw["kind"],
        "state": VALID if raw["status"] == "done" else FAILED,
        "reason": _failure(raw["error"]) if raw.get("error") else None,
        "model": origin.name,
        "model_key": origin.key,
        "method": "dense" if raw["kind"] == "dense" else _get(config, "method", "name"),
        "calibration": _get(config, "calibration", "name"),
        "protocol": name,
        "started": (raw.get("provenance") or {}).get("started"),
        "seq_len": _number(_get(config, "taylor", "seq_len")),
        "num_samples": _number(_get(config, "taylor", "num_samples")),
        "batch_size": _number(_get(config, "taylor", "batch_size")),
        "ratio": _number(_get(config, "budget", "ratio")),
        "seed": _number(config.get("seed")),
        "elapsed_s": _number(timings.get("total", sum(timings.values()) or None)),
        "memory_bytes": _number(memory.get("device") or memory.get("host")),
    }
    row |= _config_columns(config)
    row |= _metric_columns(raw.get("metrics") or {})
    parameters = raw.get("parameters")
    if parameters is not None:
        row["params_before"] = _number(parameters["before"])
        row["params_after"] = _number(parameters["after"])
        row["pruning_ratio"] = _number(parameters["ratio"])
    statistics = raw.get("statistics") or {}
    for key in STATISTICS:
        row[key] = _number(statistics.get(key))
    extreme = statistics.get("extreme_layers")
    row["extreme_layers"] = float(len(extreme)) if isinstance(extreme, list) else _number(extreme)
    mean = (raw.get("metrics") or {}).get("acc_mean")
    if row["state"] == VALID and (mean is None or mean.get("value") is None):
        row["reason"] = f"acc_mean: {(mean or {}).get('note') or '-'}"
    return row, name, protocol


def layer_values(raw: dict[str, Any]) -> np.ndarray | None:
    """Per layer: index, kept shares of attention and MLP (0..1), gradient mean, norm, std and max; [L, 7]."""
    layers = raw.get("layers")
    if not layers:
        return None
    table = np.array([[layer.get(name) for name in LAYER_FIELDS] for layer in layers], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = table[:, [1, 3]] / table[:, [2, 4]]
    shares[~np.isfinite(shares)] = np.nan
    return np.column_stack([table[:, 0], shares, table[:, 5:]])


def origin_of(raw: dict[str, Any]) -> Origin:
    """What a record says of its model: config name (the folder name of `model=local`), place and fingerprint."""
    config = raw["config"]
    name, path = str(_get(config, "model", "name") or "local"), str(_get(config, "model", "path") or "")
    if name == "local" and path:
        name = PurePath(path).name or name
    return Origin(name, path, str((raw.get("provenance") or {}).get("model_fingerprint") or ""))


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


def _protocol(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Protocol and id; grids repeat few protocols, so the digest is taken once for each."""
    protocol = protocol_of(raw["card"], raw["config"])
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


def _metric_columns(metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, metric in metrics.items():
        row[f"metric.{name}"] = metric.get("value")
        if name.endswith(SPEED_SUFFIXES):
            row.setdefault("speed", metric.get("value"))
    for task in TASKS:
        metric = metrics.get(f"{task}/{METRIC[task]}")
        if metric is not None:
            row[f"acc_{task}"], row[f"se_{task}"] = metric.get("value"), metric.get("stderr")
            row[f"n_{task}"] = metric.get("n")
    mean = metrics.get("acc_mean")
    if mean is not None:
        row["acc_mean"], row["acc_mean_se"] = mean.get("value"), mean.get("stderr")
    return row


def _failure(error: dict[str, Any]) -> str:
    message = str(error.get("message", "")).strip().splitlines()
    return f"{error.get('stage')}: {error.get('type')}: {message[0][:200] if message else ''}"


def _get(config: dict[str, Any], *keys: str) -> Any:
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float:
    if value is None or isinstance(value, str | list | dict):
        return math.nan
    return float(value)
