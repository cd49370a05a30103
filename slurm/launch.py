"""Start what is left of a grid, here or on the cluster, and follow it."""

import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live

from secateur.pruning.errors import ConfigError
from secateur.slurm import queue
from secateur.slurm.local import Pool, slots, visible_gpus
from secateur.slurm.overview import Overview, observe
from secateur.slurm.plan import Plan, Task, find_plans, load_plan
from secateur.slurm.show import console, detail_lines, event_line, live_view, status_table
from secateur.slurm.submit import adopt, queued_as, submit

FOLLOW = 3.0
"""Seconds between two looks at the queue."""

PATIENCE = 600.0
"""Seconds that the scheduler may be silent while a grid is followed."""


def look(plan: Plan, jobs: dict[str, queue.Job] | None = None) -> Overview:
    """The grid as it is now; without `jobs` the queue is asked where there is one, else records and claims decide."""
    if jobs is None and plan.launcher == "slurm" and queue.available():
        with suppress(queue.SlurmError):
            jobs = queue.jobs()
    if jobs is not None:
        adopt(plan, jobs)
    return observe(plan, jobs, queued_as(Path(plan.out), jobs))


def choose(out: Path, word: str | None) -> Plan:
    """The grid that is meant: by id or name, else the newest of a folder, else the newest of the folders below.

    Raises:
        ConfigError: There is none, or the name is not unique.
    """
    plans = [load_plan(path) for path in find_plans(out)]
    if not [plan for plan in plans if word is None or plan.grid.startswith(word)]:
        plans += [load_plan(path) for path in find_plans(out, below=True)]
    if not plans:
        raise ConfigError(f"out={out}: holds no grid yet; start one with `secateur grid grid=NAME out={out}`")
    if word is None:
        return plans[0]
    found = [plan for plan in plans if plan.grid == word] or [
        plan for plan in plans if plan.grid.startswith(word)
    ]
    if len(found) != 1:
        known = ", ".join(plan.grid for plan in plans)
        raise ConfigError(
            f"{word!r} is {'no grid' if not found else 'not one grid alone'} of {out}; there are {known}"
        )
    return found[0]


def launch(plan: Plan, retry: bool, wait: bool) -> int:
    """Do what is left of a grid.

    Args:
        plan: The grid, already saved.
        retry: Whether failed tasks are tried again.
        wait: Whether to stay until a grid on the cluster has ended.

    Returns:
        0 when everything is done (or, without `wait`, in the queue).
    """
    view = look(plan, queue.jobs() if plan.launcher == "slurm" else None)
    out = console()
    failed = [each for each in view.of("failed") if each.kind != "analysis"]
    if failed and not retry:
        out.print(
            f"{len(failed)} failed tasks are left alone; `secateur retry {plan.grid} out={plan.out}` tries them again"
        )
    if plan.launcher == "local":
        return _here(view, retry)
    sent = submit(view, retry)
    if sent.arrays:
        jobs = ", ".join(array.job for array in sent.arrays)
        count = sum(len(array.tasks) for array in sent.arrays)
        out.print(f"submitted {count} tasks in {len(sent.arrays)} arrays: jobs {jobs}")
        out.print(f"follow: secateur status {plan.grid} out={plan.out}")
    else:
        out.print("nothing to submit: everything is done, failed or in the queue")
    if wait:
        return follow(plan)
    return 0 if not failed or retry else 1


def follow(plan: Plan) -> int:
    """Show a grid on the cluster until nothing of it runs or waits."""
    out = console()
    silent = 0.0
    view = look(plan, queue.jobs())
    with Live(live_view(view), console=out, auto_refresh=False) if out.is_terminal else _Lines(out) as screen:
        while view.active:
            time.sleep(FOLLOW)
            try:
                view = look(plan, queue.jobs())
                silent = 0.0
            except queue.SlurmError:
                silent += FOLLOW
                if silent > PATIENCE:
                    raise
                continue
            screen.update(live_view(view), refresh=True)
    return _end(view, out)


def _here(view: Overview, retry: bool) -> int:
    plan, out = view.plan, console()
    places = slots(plan, plan.workers, visible_gpus())

    def report(event: str, task: Task) -> None:
        out.print(event_line(look(plan), event, task, len(places)), markup=False, soft_wrap=True)

    stopped = Pool(view, places, report, retry).run()
    if stopped:
        out.print("stopped; the same command continues where it was", soft_wrap=True)
    return max(_end(look(plan), out), 130 if stopped else 0)


def _end(view: Overview, out: Console) -> int:
    out.print(status_table(view))
    told = [each for each in view.of("failed", "blocked", "interrupted") if each.detail]
    for line in detail_lines(told[:50]):
        out.print(line, markup=False, soft_wrap=True)
    return 0 if view.complete else 1


class _Lines:
    """Stands for the live table where there is no terminal: says nothing until the end."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, view: object, *, refresh: bool) -> None:
        """Nothing to redraw."""
