"""A speed benchmark from end to end: what is asked, in random order, sample by sample, into the journal."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from secateur.eval.speed.config import SpeedConfig, load_key
from secateur.eval.speed.fit import MEMORY_ERRORS, largest_batch
from secateur.eval.speed.journal import (
    JOURNAL,
    Entry,
    Facts,
    Failed,
    Journal,
    Load,
    Roof,
    Sample,
    Sweep,
    read_sweep,
    write_sweep,
)
from secateur.eval.speed.load_probe import probe
from secateur.eval.speed.models import Models, Ready
from secateur.eval.speed.order import Cell, Visit, schedule
from secateur.eval.speed.roof import measure_roof
from secateur.eval.speed.timing import Timed, make_cache, prompt, timed_pass
from secateur.pruning.errors import StorageError
from secateur.pruning.files import clear_leftovers
from secateur.pruning.memory import Meter
from secateur.pruning.progress import Bar
from secateur.pruning.provenance import now

log = logging.getLogger(__name__)
SHORT = 2
"""Decode steps of the passes that only warm up."""
SPEAK = 30.0
"""Seconds between lines about progress in a log."""


@dataclass
class _State:
    """A sweep under way: what is done already, and what is in memory."""

    configs: list[SpeedConfig]
    journal: Journal
    models: Models
    done: dict[str, Entry]
    warm: set[tuple[int, Cell, int]]
    session: str
    position: int = 0


def run_sweep(configs: list[SpeedConfig], sweep: Sweep, folder: Path) -> list[Entry]:
    """Measure what is not measured yet; returns everything that the journal holds.

    Raises:
        StorageError: The folder cannot be written, or its journal is damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error}. Choose another out=DIR") from error
    with FileLock(folder / ".lock"):
        clear_leftovers(folder)
        journal = Journal(folder)
        journal.mend()
        entries = journal.read()
        if not (folder / JOURNAL).exists() or not entries:
            write_sweep(folder, sweep)
        else:
            read_sweep(folder)
        done = {key_of(entry): entry for entry in entries}
        session = f"{now()} {os.getpid()}"
        models = Models(configs[0].bench.resident)
        state = _State(configs, journal, models, done, set(), session)
        threads = torch.get_num_threads()
        try:
            _prepare(state)
            _visits(state, sweep)
        finally:
            torch.set_num_threads(threads)
            models.clear()
        return journal.read()


def key_of(entry: Entry) -> str:
    """What an entry is recognised by when a sweep goes on."""
    if isinstance(entry, Sample):
        cell = Cell(entry.n_prompt, entry.n_gen, 0 if entry.largest else entry.batch)
        return f"sample {Visit(entry.variant, cell, entry.round).key}"
    if isinstance(entry, Facts):
        return f"facts {entry.variant}"
    if isinstance(entry, Load):
        return f"load {entry.variant}/{entry.round}"
    if isinstance(entry, Roof):
        return f"roof {entry.dtype}/{entry.threads}"
    return f"failed {entry.variant}/{entry.cell}"


def _add(state: _State, entry: Entry) -> None:
    state.journal.append(entry)
    state.done[key_of(entry)] = entry


def _prepare(state: _State) -> None:
    """Facts of every variant, loads in processes of their own, the machine's limits."""
    for place, config in enumerate(state.configs):
        _threads(config)
        if f"facts {place}" not in state.done:
            ready = state.models.get(config)
            facts = ready.facts.model_copy(update={"variant": place})
            if "max" in config.bench.batch:
                longest = Cell(max(config.bench.n_prompt), max(config.bench.n_gen), 0)
                batch, why = largest_batch(ready, config.bench, _trial(ready, config, longest))
                facts = facts.model_copy(update={"max_batch": batch, "max_batch_why": why})
            _add(state, facts)
        if config.bench.roofline:
            ready = state.models.get(config)
            dtype = next(ready.model.parameters()).dtype
            threads = torch.get_num_threads() if ready.device.type == "cpu" else None
            if f"roof {str(dtype).removeprefix('torch.')}/{threads}" not in state.done:
                _add(state, measure_roof(ready.device, dtype))
    rounds = max(config.bench.load_repetitions for config in state.configs)
    for number in range(rounds):
        for place, config in enumerate(state.configs):
            if number < config.bench.load_repetitions and f"load {place}/{number}" not in state.done:
                _add(state, Load(variant=place, round=number, **probe(config)))


def _trial(ready: Ready, config: SpeedConfig, cell: Cell) -> Any:
    return lambda batch: _pass(ready, config, Cell(cell.n_prompt, cell.n_gen, batch), SHORT)


def _visits(state: _State, sweep: Sweep) -> None:
    """Every sample, in random order; what is done is passed over."""
    work = [
        (place, Cell(*(0 if part == "max" else int(part) for part in name.split("x", 2))))
        for place, variant in enumerate(sweep.variants)
        for name in variant.cells
    ]
    first = state.configs[0].bench
    loads = [load_key(config) for config in state.configs]
    visits = schedule(work, loads, first.repetitions, first.order_seed, first.resident)
    open_visits = [visit for visit in visits if f"sample {visit.key}" not in state.done]
    if len(open_visits) < len(visits):
        log.info("%d of %d samples are there already", len(visits) - len(open_visits), len(visits))
    started = spoken = time.perf_counter()
    with Bar("speed", len(open_visits), show=state.configs[0].progress) as bar:
        for count, visit in enumerate(open_visits, 1):
            _visit(state, visit)
            bar.advance()
            clock = time.perf_counter()
            if clock - spoken > SPEAK:
                spoken = clock
                left = (clock - started) / count * (len(open_visits) - count)
                log.info("%d of %d samples, %.0f s left", count, len(open_visits), left)


def _visit(state: _State, visit: Visit) -> None:
    """Warm up, take one sample, write it down."""
    failed = f"failed {visit.variant}/{visit.cell.key}"
    if failed in state.done:
        return
    config = state.configs[visit.variant]
    facts = state.done[f"facts {visit.variant}"]
    assert isinstance(facts, Facts)
    cell = visit.cell
    batch = cell.batch or facts.max_batch or 1
    try:
        ready = state.models.get(config)
        actual = Cell(cell.n_prompt, cell.n_gen, batch)
        _threads(config)
        known = (visit.variant, actual, id(ready))
        for _ in range(1 if known in state.warm else config.bench.warmup):
            _pass(ready, config, actual, SHORT if known in state.warm else cell.n_gen)
        state.warm.add(known)
        meter = Meter(ready.device)
        timed = _pass(ready, config, actual, cell.n_gen)
        peak = meter.peak()
    except MEMORY_ERRORS as error:
        reason = f"out of memory: {str(error).splitlines()[0] if str(error) else 'no message'}"
        log.warning("%s, cell %s: %s", facts.fingerprint, cell.key, reason)
        state.models.clear()
        _add(state, Failed(variant=visit.variant, cell=cell.key, reason=reason))
        return
    _add(
        state,
        Sample(
            variant=visit.variant, n_prompt=cell.n_prompt, n_gen=cell.n_gen, batch=batch, largest=cell.batch == 0,
            round=visit.round, position=state.position, session=state.session, at=now(),
            prefill_s=timed.prefill_s, first_token_s=timed.first_token_s, decode_s=timed.decode_s,
            host_before=peak.host_before, host_peak=peak.host_peak, device_before=peak.device_before,
            device_peak=peak.device_peak,
        ),
    )  # fmt: skip
    state.position += 1


def _pass(ready: Ready, config: SpeedConfig, cell: Cell, steps: int) -> Timed:
    """One pass of a cell, with `steps` decode steps at most."""
    ids = prompt(ready.vocabulary, cell.batch, cell.n_prompt, ready.device)
    cache = make_cache(ready.config, config.bench.cache, cell.n_prompt + cell.n_gen + 1)
    return timed_pass(ready.forward, ids, min(steps, cell.n_gen), cache, ready.before_step)


def _threads(config: SpeedConfig) -> None:
    wanted = config.bench.threads
    if wanted is not None and wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)
