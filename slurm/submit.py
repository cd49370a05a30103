"""The plan as job arrays of Slurm: captures, then the runs that need each of them, then the analysis."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur.pruning.config import Frozen
from secateur.pruning.files import read_json, write_atomic, write_json
from secateur.slurm import queue
from secateur.slurm.overview import Overview
from secateur.slurm.plan import ROOT, STAGE, Plan, Task


class Submission(Frozen):
    """One array in the queue's hands.

    Attributes:
        name: Number of the array within the grid; its files are `arrays/<name>.{json,sh}`.
        job: Slurm's id of the array.
        tasks: Task ids; position k is array task `<job>_<k>`.
    """

    name: str
    job: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Submitted:
    """What one call has put into the queue."""

    arrays: tuple[Submission, ...]
    skipped: tuple[str, ...]


def submissions(plan: Plan) -> list[Submission]:
    """What was submitted for a grid, the oldest first."""
    path = plan.folder / "submissions.json"
    return [Submission.model_validate(raw) for raw in read_json(path)["arrays"]] if path.is_file() else []


def queued_as(out: Path, jobs: Mapping[str, queue.Job] | None) -> dict[str, str]:
    """Task id -> array task it was submitted as, over all grids of a folder; what is still in the queue wins."""
    found: dict[str, str] = {}
    for path in sorted((out / "grids").glob("*/submissions.json"), key=lambda path: path.stat().st_mtime):
        for array in (Submission.model_validate(raw) for raw in read_json(path)["arrays"]):
            for index, task in enumerate(array.tasks):
                if found.get(task) not in (jobs or {}) or f"{array.job}_{index}" in (jobs or {}):
                    found[task] = f"{array.job}_{index}"
    return found


def adopt(plan: Plan, jobs: Mapping[str, queue.Job]) -> None:
    """Take up arrays that were submitted by a process that died before it could note them."""
    known = submissions(plan)
    names = {array.name for array in known}
    for job in jobs.values():
        grid, _, number = job.name.removeprefix("secateur-").rpartition(".")
        path = plan.folder / "arrays" / f"{number}.json"
        if grid == plan.grid and number not in names and path.is_file():
            known.append(Submission(name=number, job=job.id.split("_")[0], tasks=tuple(read_json(path))))
            names.add(number)
            _note(plan, known)


def submit(view: Overview, retry: bool = False) -> Submitted:
    """Put everything that is left into the queue, each task behind what it needs.

    Args:
        view: The grid as it is now, the queue included.
        retry: Whether failed tasks are submitted again.

    Raises:
        SlurmError: Slurm is missing or refuses.
    """
    plan, tasks = view.plan, view.plan.by_id()
    wanted = {"waiting", "interrupted"} | ({"failed", "blocked"} if retry else set())
    todo = {
        each.id: tasks[each.id] for each in view.tasks if each.condition in wanted and each.kind != "analysis"
    }
    jobs = {each.id: each.job for each in view.tasks if each.job and each.condition in {"queued", "running"}}
    done = {each.id for each in view.tasks if each.condition == "done"}
    arrays: list[Submission] = []
    size = queue.max_array_size()
    for stage in (("capture",), ("baseline", "run")):
        groups: dict[tuple[str, ...], list[Task]] = {}
        for task in todo.values():
            open_needs = [name for name in task.needs if name not in done]
            if task.kind in stage and all(name in jobs for name in open_needs):
                groups.setdefault(tuple(f"afterok:{jobs[name]}" for name in open_needs), []).append(task)
        for needs, members in groups.items():
            for start in range(0, len(members), size):
                array = _sbatch(plan, members[start : start + size], ",".join(needs))
                arrays.append(array)
                jobs |= {task: f"{array.job}_{index}" for index, task in enumerate(array.tasks)}
    arrays += _last(view, jobs, bool(arrays))
    skipped = tuple(name for name in todo if name not in jobs)
    return Submitted(tuple(arrays), skipped)


def _last(view: Overview, jobs: dict[str, str], anything: bool) -> list[Submission]:
    """The analysis, behind everything; one that waits for less than that is replaced."""
    plan = view.plan
    analysis = next((each for each in view.tasks if each.kind == "analysis"), None)
    if analysis is None or (analysis.condition in {"done", "queued", "running"} and not anything):
        return []
    if analysis.condition == "queued" and analysis.job:
        queue.call("scancel", analysis.job)
    numbers = sorted({job.split("_")[0] for name, job in jobs.items() if name != analysis.id})
    after = "afterany:" + ":".join(numbers) if numbers else ""
    return [_sbatch(plan, [plan.by_id()[analysis.id]], after)]


def _sbatch(plan: Plan, tasks: list[Task], dependency: str) -> Submission:
    """Write the files of one array and submit it."""
    known = submissions(plan)
    files = [int(path.stem) for path in (plan.folder / "arrays").glob("*.json") if path.stem.isdigit()]
    name = f"{max([0, *files]) + 1:04d}"
    listing, script = plan.folder / "arrays" / f"{name}.json", plan.folder / "arrays" / f"{name}.sh"
    write_json(listing, [task.id for task in tasks])
    text = script_text(plan, listing)
    write_atomic(script, lambda path: _fill(path, text))
    (plan.folder / "logs" / "slurm").mkdir(parents=True, exist_ok=True)
    arguments = sbatch_arguments(plan, tasks, name, dependency)
    job = queue.call("sbatch", *arguments, str(script)).strip().split(";")[0]
    array = Submission(name=name, job=job, tasks=tuple(task.id for task in tasks))
    _note(plan, [*known, array])
    return array


def sbatch_arguments(plan: Plan, tasks: list[Task], name: str, dependency: str) -> list[str]:
    """Arguments of `sbatch` for one array."""
    cluster = plan.slurm
    limit = f"%{cluster.throttle}" if cluster.throttle else ""
    return [
        "--parsable",
        f"--job-name=secateur-{plan.grid}.{name}",
        f"--array=0-{len(tasks) - 1}{limit}",
        f"--output={plan.folder / 'logs' / 'slurm' / '%A_%a.out'}",
        "--open-mode=append",
        "--requeue" if cluster.requeue else "--no-requeue",
        *([f"--signal=B:USR2@{cluster.signal_before}"] if cluster.signal_before else []),
        *([f"--dependency={dependency}", "--kill-on-invalid-dep=yes"] if dependency else []),
        f"--chdir={plan.cwd}",
        *cluster.resources(STAGE[tasks[0].kind]).arguments(),
    ]


def script_text(plan: Plan, listing: Path) -> str:
    """The batch script of one array: set-up lines, then the runner in the shell's place, where signals reach it."""
    runner = [sys.executable, "-P", "-m", "secateur.slurm.task", str(plan.path), "--array", str(listing)]
    lines = [
        "#!/bin/bash",
        f"# grid {plan.grid}; SLURM_ARRAY_TASK_ID chooses the task in {listing.name}",
        *(f"export {key}={shlex.quote(value)}" for key, value in sorted(plan.slurm.env.items())),
        *plan.slurm.setup,
        f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        f"exec {shlex.join(runner)}",
    ]
    return "\n".join(lines) + "\n"


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _note(plan: Plan, arrays: list[Submission]) -> None:
    write_json(
        plan.folder / "submissions.json", {"arrays": [array.model_dump(mode="json") for array in arrays]}
    )
