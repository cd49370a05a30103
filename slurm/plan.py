"""The plan of a grid: typed tasks with their needs, as a JSON file that every job reads."""

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

import secateur
from secateur.pruning.config import Frozen
from secateur.pruning.errors import StorageError
from secateur.pruning.files import read_json, write_json
from secateur.slurm.config import SlurmConfig

Kind = Literal["capture", "baseline", "run", "analysis"]
STAGE: dict[Kind, str] = {"capture": "capture", "baseline": "run", "run": "run", "analysis": "analysis"}
"""Which entry of the cluster's resources a kind of task asks for."""

ROOT = Path(secateur.__file__).resolve().parent.parent
"""The folder that holds `secateur`: jobs import it from here, whatever their working directory."""


class Task(Frozen):
    """One process to run.

    Attributes:
        id: Name of the task, the same in every grid that needs it: run id, or `capture-<model>-<seq_len>-<digest>`.
        kind: What it does.
        argv: Words after `secateur`.
        needs: Tasks that have to be done before.
        label: What a person reads in tables.
        config: The full config of a run, for the row of a run that dies without writing one.
        counts: Sample counts that a capture serves.
        gradient_tokens: Tokens that a capture sends forward and backward.
    """

    id: str
    kind: Kind
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    label: str = ""
    config: dict[str, Any] | None = None
    counts: tuple[int, ...] = ()
    gradient_tokens: int = 0


class Plan(Frozen):
    """Everything that jobs and `status` need to know about a grid.

    Attributes:
        grid: Grid id: name and digest of its tasks.
        name: Name of the grid.
        out: Folder of the runs, absolute.
        cwd: Where the grid was planned; relative paths in `argv` start there.
        worker: Command that `argv` is appended to.
        threads: CPU threads of each run, null when not fixed.
        launcher: Back-end that was chosen last.
        workers: Number of workers of the local back-end, null for one per GPU.
        slurm: The cluster.
        code: Fingerprint of the code that planned.
        foreign: What happens to finished runs of other code: refuse to go on, reuse them, or set them aside and redo.
        typed: The words that the grid was asked for with.
        unshared_tokens: Gradient tokens without sharing, one pass per run.
        expected: Minutes of a capture and of a run that the grid file expects, if it says so.
        tasks: All tasks, needs before what needs them.
    """

    schema_version: Literal[1] = 1
    grid: str
    name: str
    out: str
    cwd: str
    worker: tuple[str, ...] | None = None
    threads: int | None = None
    launcher: Literal["local", "slurm"] = "local"
    workers: int | None = None
    slurm: SlurmConfig = SlurmConfig()
    code: str = ""
    foreign: Literal["refuse", "reuse", "redo"] = "refuse"
    typed: tuple[str, ...] = ()
    unshared_tokens: int = 0
    expected: dict[str, float] = {}
    tasks: tuple[Task, ...]

    @property
    def folder(self) -> Path:
        """The grid's own folder."""
        return Path(self.out) / "grids" / self.grid

    @property
    def path(self) -> Path:
        """The plan's file."""
        return self.folder / "plan.json"

    def by_id(self) -> dict[str, Task]:
        """Tasks by their id."""
        return {task.id: task for task in self.tasks}

    def of(self, *kinds: Kind) -> list[Task]:
        """The tasks of some kinds, in the order of the plan."""
        return [task for task in self.tasks if task.kind in kinds]


def save_plan(plan: Plan) -> None:
    """Write the plan into its grid's folder, whole or not at all."""
    write_json(plan.path, plan.model_dump(mode="json"))


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        StorageError: The file is missing, damaged or of another version.
    """
    try:
        return Plan.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StorageError(
            f"{path} is no plan of this version ({where}: {first['msg']}); run the grid command again"
        ) from error


def find_plans(out: Path, below: bool = False) -> list[Path]:
    """Plan files in `OUT/grids`, or of the folders of runs `below` (`make demo` has `runs/demo`), the newest first."""
    found = list(out.glob("*/grids/*/plan.json" if below else "grids/*/plan.json"))
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
