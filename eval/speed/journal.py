"""A benchmark's folder: `sweep.json` says what is asked, `journal.jsonl` holds what was measured. No torch here.

The journal is only ever appended to, one line and one flush per entry; a line that a kill cut short is cut off
before the next entry, so that an interrupted sweep goes on where it was.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from secateur.pruning.config import Frozen
from secateur.pruning.errors import StorageError
from secateur.pruning.files import dumps, write_json
from secateur.pruning.schema import read_typed

SWEEP, JOURNAL = "sweep.json", "journal.jsonl"
SCHEMA = 1


class Variant(Frozen):
    """One setting of a sweep.

    Attributes:
        subject: What the reports call the model.
        model: Name of the dense model that it is, or was cut from.
        settings: Every setting under its dotted key.
        left_out: Cells beyond the model's context.
    """

    subject: str
    model: str
    settings: dict[str, str | int | float | bool | None]
    cells: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    context: int | None = None


class Sweep(Frozen):
    """What a benchmark folder is about; `swept` are the settings that its command line varied."""

    schema_version: int = SCHEMA
    name: str
    started: str
    repetitions: int
    swept: tuple[str, ...]
    variants: tuple[Variant, ...]
    provenance: dict[str, Any]


class Facts(Frozen):
    """What is known of a variant once its model is in memory. Sizes in bytes, counts in parameters.

    Attributes:
        fingerprint: Of the dense model.
        parameters, dense_parameters: Of the model, and of the dense one where that is known.
        layers: Per decoder layer: `q`, `kv` features of all heads (keys and values together), `window` in tokens.
        linear, head: Weights of the decoder's linear maps, and of the output head.
        widths: Kept MLP widths, one per layer.
        load_s: Seconds until the model was in memory, the cut included.
        max_batch: What `batch=max` came to, and what stopped it.
    """

    kind: Literal["facts"] = "facts"
    variant: int
    fingerprint: str
    parameters: int
    dense_parameters: int | None
    dtype: str
    weight_bytes: int
    element_bytes: float
    linear: int
    head: int
    layers: tuple[dict[str, int | None], ...]
    widths: tuple[int, ...] = ()
    load_s: float
    max_batch: int | None = None
    max_batch_why: str | None = None


class Sample(Frozen):
    """One timed pass. Seconds; bytes.

    Attributes:
        position: Place in the order of this session, from 0.
        session: Start time and process of the session that took it.
        prefill_s: The forward pass over the prompt, to the logits of its last position.
        first_token_s: The same with the choice of the first token, known to the host.
        decode_s: `n_gen` steps of one token each, greedy.
        host_before, host_peak: Resident memory before the pass and its peak (None where it cannot be reset).
        device_before, device_peak: The same of the accelerator's allocator.
    """

    kind: Literal["sample"] = "sample"
    variant: int
    n_prompt: int
    n_gen: int
    batch: int
    largest: bool = False
    round: int
    position: int
    session: str
    at: str
    prefill_s: float
    first_token_s: float
    decode_s: float | None
    host_before: int | None = None
    host_peak: int | None = None
    device_before: int | None = None
    device_peak: int | None = None


class Load(Frozen):
    """One load in a process of its own. Seconds; bytes.

    Attributes:
        load_s: Files to model in memory.
        first_pass_s: The first forward pass, which reads what mapping left in the file.
        rss_before, rss_loaded, rss_after_pass, rss_peak: Resident memory of that process.
    """

    kind: Literal["load"] = "load"
    variant: int
    round: int
    load_s: float
    first_pass_s: float
    rss_before: int
    rss_loaded: int
    rss_after_pass: int
    rss_peak: int


class Roof(Frozen):
    """What the machine can do at best: FLOP/s of a large matrix product, bytes/s of reading a large array."""

    kind: Literal["roof"] = "roof"
    dtype: str
    threads: int | None
    flops: float
    bandwidth: float


class Failed(Frozen):
    """A cell that could not be measured, and why."""

    kind: Literal["failed"] = "failed"
    variant: int
    cell: str
    reason: str


Entry = Facts | Sample | Load | Roof | Failed
KINDS: dict[str, type[Entry]] = {
    "facts": Facts,
    "sample": Sample,
    "load": Load,
    "roof": Roof,
    "failed": Failed,
}


class Journal:
    """The journal of one folder; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL

    def append(self, entry: Entry) -> None:
        """Add one entry: it is on the disk when this returns."""
        line = dumps(entry.model_dump(mode="json"), indent=None) + "\n"
        try:
            with self.path.open("ab") as handle:
                handle.write(line.encode())
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error}. Free some space; the same command continues"
            ) from error

    def mend(self) -> None:
        """Cut off a last line that a kill left unfinished."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("r+b") as handle:
                handle.truncate(whole)

    def read(self) -> list[Entry]:
        """Every whole entry, in order.

        Raises:
            StorageError: A line before the last is damaged; it is named.
        """
        return list(read_journal(self.path))


def read_journal(path: Path) -> Iterator[Entry]:
    """Entries of a journal; an unfinished last line is no entry.

    Raises:
        StorageError: A whole line is not an entry; the line is named.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            raw = json.loads(line)
            yield KINDS[raw["kind"]].model_validate(raw)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise StorageError(
                f"{path}, line {number}: not a benchmark entry ({reason}). Delete the line and run again"
            ) from error


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write `sweep.json` atomically."""
    write_json(folder / SWEEP, sweep.model_dump(mode="json"))


def read_sweep(folder: Path) -> Sweep:
    """Read `sweep.json`.

    Raises:
        StorageError: The file is missing, damaged or of another schema.
    """
    return read_typed(folder / SWEEP, Sweep, f"a sweep of schema {SCHEMA}")
