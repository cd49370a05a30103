"""The records of one grid in one folder, for its analysis: runs of other grids in the same `out=DIR` stay out.

The report of before goes: tables that the next one does not write (failures since healed) would stay in it.
"""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from secateur.eval.record import ANSWERS, FAILED, RECORD
from secateur.pruning.errors import StorageError
from secateur.slurm.plan import Plan
from secateur.slurm.state import record_digest, run_folder

FOLDER = ".runs"
"""Hidden, so that an analysis of the whole `out=DIR` does not read the records twice."""


REPORT = "report"
"""Folder of a grid's reports, below the grid's own."""


def gather(plan: Plan) -> str:
    """Link (or copy) the grid's records and answers below its folder; return the digest of what was found.

    Raises:
        StorageError: The folder cannot be written.
    """
    inputs = record_digest(plan)
    fresh = plan.folder / f"{FOLDER}.{uuid4().hex}"
    final = plan.folder / FOLDER
    try:
        fresh.mkdir(parents=True)
        for task in plan.of("baseline", "run"):
            source = run_folder(plan, task.id)
            name = next((name for name in (RECORD, FAILED) if (source / name).is_file()), None)
            if name is not None:
                (fresh / task.id).mkdir()
                for part in (name, ANSWERS):
                    if (source / part).is_file():
                        _link(source / part, fresh / task.id / part)
        shutil.rmtree(final, ignore_errors=True)
        fresh.rename(final)
        shutil.rmtree(plan.folder / REPORT, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot gather the records in {final}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return inputs


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
