"""One run from end to end: prune (pruning/pipeline.py), measure (eval/measure.py), write the record.

PruneConfig -> (model, adapter) -> samples -> Capture -> scores -> PruningPlan -> smaller model
            -> Measurements -> RunRecord
"""

import logging
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from secateur.eval.config import RunConfig
from secateur.eval.data import data_folder
from secateur.eval.identity import dense_config, is_dense, run_id
from secateur.eval.measure import measure
from secateur.eval.perplexity import check_texts, check_windows
from secateur.eval.protocols import protocols
from secateur.eval.record import ANSWERS, RECORD, Failure, RunRecord, read_record, write_record
from secateur.eval.recording import failed_record, finished_record
from secateur.eval.remembered import ENTRY, remember
from secateur.eval.seven import TASKS
from secateur.eval.tasks import load_tasks
from secateur.eval.unseen import evaluation_text
from secateur.pruning import pipeline
from secateur.pruning.capture.workers import Workers
from secateur.pruning.checkpoint import save_pruned
from secateur.pruning.errors import StorageError
from secateur.pruning.files import clear_leftovers, digest, write_atomic, write_json
from secateur.pruning.health import refuse_sick
from secateur.pruning.models.loading import load, outline
from secateur.pruning.obtain import obtain_capture
from secateur.pruning.pipeline import Pruned
from secateur.pruning.plan import PruningPlan, whole
from secateur.pruning.provenance import now, provenance
from secateur.pruning.surgery import prune

log = logging.getLogger(__name__)

PLAN, STAGE, CHECKPOINT = "plan.json", "stage.json", "model"


@dataclass
class _Progress:
    """Where a run is: kept in `stage.json`, so that others can look."""

    folder: Path
    stage: str = "start"

    def __call__(self, stage: str) -> None:
        self.stage = stage
        if os.environ.get("RANK", "0") != "0":
            return
        facts = {"stage": stage, "started": now(), "pid": os.getpid(), "host": socket.gethostname()}
        write_json(self.folder / STAGE, facts)
        log.info("stage: %s", stage)


def experiment(config: RunConfig, plan: PruningPlan | None = None) -> RunRecord:
    """Run one experiment, or return the record that is there already.

    Args:
        config: The run. `budget.ratio=0` measures the model as it is.
        plan: Apply this plan instead of making one (measuring a finished run again).

    Raises:
        SecateurError: With `failed.json` in the run folder saying the same.
    """
    name, folder = _place(config)
    workers = Workers()
    with _alone(folder, workers):
        if workers.total(int(workers.main and (folder / RECORD).exists())):
            log.info("%s is done already: %s", name, folder / RECORD)
            if config.save_model and not (folder / CHECKPOINT).exists():
                done = None if is_dense(config) else PruningPlan.load(folder / PLAN)
                again = _pruned(config, folder, done, lambda stage: log.info("stage: %s", stage))
                _save(config, folder, again, workers)
            return read_record(folder)
        if workers.main:
            clear_leftovers(folder)
        progress = _Progress(folder)
        started = now()
        with _failures(config, name, progress, started):
            record = _run(config, name, folder, progress, started, plan, workers)
            if workers.main:
                write_record(folder, record)
                (folder / STAGE).unlink(missing_ok=True)
        return record


def check(config: RunConfig) -> None:
    """Refuse a run that cannot work before anything is loaded or measured; `failed.json` says why."""
    name, folder = _place(config)
    if (folder / RECORD).exists():
        return
    with _failures(config, name, _Progress(folder, "check"), now()):
        model = outline(config.model)
        check_windows(model.model, model.tokenizer, config.eval)
        check_texts(model.tokenizer, config.eval)
        if data_folder(config.eval) is not None or set(config.eval.tasks) - set(TASKS):
            load_tasks(config.eval)
        if not is_dense(config):
            pipeline.check(config, model, evaluation_text(config.eval))


def _place(config: RunConfig) -> tuple[str, Path]:
    """Name and folder of a run; the folder is made."""
    name = run_id(config)
    folder = Path(config.out) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"out={config.out}: {error}. Choose a folder that can be written") from error
    return name, folder


@contextmanager
def _alone(folder: Path, workers: Workers) -> Generator[None]:
    """Hold a run's folder: other processes wait here. Of several workers on one run the main one holds it."""
    if not workers.main:
        yield
        return
    with FileLock(folder / ".lock"):
        yield


@contextmanager
def _failures(config: RunConfig, name: str, progress: _Progress, started: str) -> Generator[None]:
    """Keep an error in `failed.json` and raise it on; an interrupted run has not failed."""
    try:
        yield
    except Exception as error:
        failure = Failure(stage=progress.stage, type=type(error).__name__, message=str(error))
        with suppress(StorageError):  # a full disk must not hide the error itself
            write_record(progress.folder, failed_record(config, name, failure, started))
        raise


def baseline(config: RunConfig) -> RunRecord | None:
    """The dense baseline of a run, measured once per model and evaluation; None where there is nothing to measure."""
    if is_dense(config) or not (config.eval.tasks or protocols(config.eval)):
        return None
    return experiment(dense_config(config))


def capture_only(config: RunConfig) -> dict[str, Any]:
    """Compute (or find) the capture that runs with this config share; returns its facts."""
    loaded = load(config.model, config.device)
    refuse_sick(loaded.model)
    capture, reused = obtain_capture(config, loaded, evaluation_text(config.eval))
    return {**capture.facts, "reused": reused, "snapshots": list(capture.snapshots)}


def _run(
    config: RunConfig,
    name: str,
    folder: Path,
    progress: _Progress,
    started: str,
    plan: PruningPlan | None,
    workers: Workers,
) -> RunRecord:
    clock = time.perf_counter()
    pruned = _pruned(config, folder, plan, progress)
    loaded = pruned.loaded
    if config.save_model and not (folder / CHECKPOINT).exists():
        progress("save")
        _save(config, folder, pruned, workers)
    progress("evaluate")
    kept = [(p.kept_kv_groups, p.kept_channels) for p in pruned.plan.layers]
    content = digest([loaded.fingerprint, kept, name if config.method.changes_weights else ""])
    measured = measure(
        loaded.model,
        loaded.tokenizer,
        config.eval,
        folder,
        progress=config.progress is not False,
        identity=content,
        cache=Path(config.out) / "cache" / "requests",
        untouched=_untouched(pruned.plan),
    )
    if len(measured.answers) and workers.main:
        write_atomic(folder / ANSWERS, lambda path: measured.answers.to_parquet(path, index=False))
    seconds = {**pruned.seconds, **measured.seconds, "total": time.perf_counter() - clock}
    return finished_record(config, name, pruned, measured, seconds, started)


def _pruned(config: RunConfig, folder: Path, plan: PruningPlan | None, announce: pipeline.Announce) -> Pruned:
    """The model of a run: made anew, unless the base model and a plan that exists are all it takes."""
    if is_dense(config) or (plan is not None and not config.method.changes_weights):
        return _given(config, plan, announce)
    return pipeline.run(
        config, exclude=evaluation_text(config.eval), plan_path=folder / PLAN, announce=announce
    )


def _save(config: RunConfig, folder: Path, pruned: Pruned, workers: Workers) -> None:
    """Write the checkpoint, from one process."""
    if workers.main:
        loaded, origin = pruned.loaded, provenance() | {ENTRY: remember(config.eval)}
        save_pruned(folder / CHECKPOINT, loaded.model, loaded.tokenizer, pruned.plan, origin)
    workers.wait()


def _given(config: RunConfig, plan: PruningPlan | None, progress: pipeline.Announce) -> Pruned:
    """A dense model, or one cut to a plan that exists: nothing is scored."""
    progress("load")
    start = time.perf_counter()
    loaded = load(config.model, config.device)
    if plan is None:
        plan = whole(loaded.layout, loaded.fingerprint)
    if plan.removed:
        progress("surgery")
        prune(loaded.model, loaded.adapter, plan)
    return Pruned(loaded, plan, None, True, {"load": time.perf_counter() - start})


def _untouched(plan: PruningPlan) -> int:
    """How many layers at the start of the model the plan leaves as they are; 0 for a dense model."""
    cut = [i for i, layer in enumerate(plan.layers) if layer.attention_cut > 0 or layer.mlp_cut > 0]
    return cut[0] if cut else 0
