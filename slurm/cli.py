"""The commands over many runs: grid, status, logs, retry, cancel."""

import os
import signal
from pathlib import Path
from typing import Any

from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError, StorageError
from secateur.pruning.files import dumps, read_json
from secateur.slurm import queue
from secateur.slurm.arguments import Arguments, parse
from secateur.slurm.claims import Owner
from secateur.slurm.config import GridConfig
from secateur.slurm.estimate import as_json
from secateur.slurm.foreign import find_foreign, settle
from secateur.slurm.grid import build, load_grid, load_slurm
from secateur.slurm.helptext import CANCEL, GRID, LOGS, RETRY, STATUS
from secateur.slurm.launch import choose, follow, launch, look
from secateur.slurm.local import side_by_side
from secateur.slurm.plan import Plan, find_plans, load_plan, save_plan
from secateur.slurm.preflight import check, refuse
from secateur.slurm.show import console, detail_lines, plan_table, status_table, task_lines
from secateur.slurm.state import log_path

OWN = {"grid", "launcher", "workers", "slurm", "out", "foreign", "threads"}
"""Keys of this command; every other key belongs to the runs."""


def grid(argv: list[str]) -> int:
    """`secateur grid`: expand, show, drop what is finished, run the rest."""
    given = parse(argv, {"dry-run", "wait", "json", "tasks", "help"})
    if "help" in given.flags or not given.values:
        print(GRID)
        return 0 if "help" in given.flags else 2
    plan = _plan(given, tuple(argv))
    foreign = find_foreign(plan)
    problems = check(plan, plan.slurm.offline) if plan.launcher == "slurm" else check(plan, offline=False)
    out = console()
    if "dry-run" in given.flags:
        view = look(plan)
        if "json" in given.flags:
            print(dumps(as_json(view) | {"foreign": len(foreign), "problems": [p.what for p in problems]}))
            return 0
        out.print(plan_table(view, side_by_side(plan)))
        for line in task_lines(plan) if "tasks" in given.flags else []:
            out.print(line, markup=False, soft_wrap=True)
        for problem in problems:
            out.print(f"missing: {problem.what}\n  {problem.fix}", markup=False)
        if foreign:
            out.print(
                f"other code: {len(foreign)} finished runs, e.g. {foreign[0].task}: {foreign[0].why}",
                markup=False,
            )
        return 0
    refuse(problems)
    for line in settle(plan, foreign):
        out.print(line, markup=False)
    save_plan(plan)
    out.print(plan_table(look(plan), side_by_side(plan)))
    return launch(plan, retry=False, wait="wait" in given.flags)


def status(argv: list[str]) -> int:
    """`secateur status`: how far the newest (or the named) grid of a folder is."""
    given = parse(argv, {"json", "wait", "help"}, words=1)
    if "help" in given.flags:
        print(STATUS)
        return 0
    plan = _chosen(given)
    if "wait" in given.flags:
        return follow(plan)
    view = look(plan)
    if "json" in given.flags:
        print(dumps(as_json(view)))
        return 0
    out = console()
    out.print(status_table(view))
    rows = view.of("running", "failed", "blocked", "interrupted")
    for line in detail_lines(rows):
        out.print(line, markup=False, soft_wrap=True)
    others = [path.parent.name for path in find_plans(Path(plan.out)) if path.parent.name != plan.grid]
    if others:
        out.print(f"other grids here: {', '.join(others)}   (secateur status GRID)")
    return 0


def logs(argv: list[str]) -> int:
    """`secateur logs RUN`: what a run has written."""
    given = parse(argv, {"help"}, words=1)
    if "help" in given.flags or not given.words:
        print(LOGS)
        return 0 if "help" in given.flags else 2
    out, word, lines = _out(given), given.words[0], int(given.one("lines", 100))
    found = {
        task.id: log_path(plan, task.id)
        for plan in map(load_plan, find_plans(out) + find_plans(out, below=True))
        for task in plan.tasks
        if word in task.id and log_path(plan, task.id).is_file()
    }
    if word in found:
        found = {word: found[word]}
    if not found:
        raise ConfigError(
            f"{word!r}: no task of a grid in {out} with such a name has a log; `secateur status` lists them"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{word!r} fits {len(found)} tasks: {', '.join(sorted(found)[:8])}; give more of the name"
        )
    path = next(iter(found.values()))
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    print("\n".join([f"{path}:", *text[-lines:]]))
    return 0


def retry(argv: list[str]) -> int:
    """`secateur retry`: the failed tasks of a grid again, and what they had blocked."""
    given = parse(argv, {"wait", "help"}, words=1)
    if "help" in given.flags:
        print(RETRY)
        return 0
    _only(given, {"out", "launcher", "workers"})
    plan = _chosen(given)
    changes = {key: given.one(key) for key in ("launcher", "workers") if key in given.values}
    plan = validate(Plan, plan.model_dump() | changes)
    save_plan(plan)
    return launch(plan, retry=True, wait="wait" in given.flags)


def cancel(argv: list[str]) -> int:
    """`secateur cancel`: take a grid out of the queue, or stop its launcher here."""
    given = parse(argv, {"help"}, words=1)
    if "help" in given.flags:
        print(CANCEL)
        return 0
    plan = _chosen(given)
    out = console()
    path = plan.folder / "launcher.json"
    if path.is_file():
        owner = Owner.model_validate(read_json(path))
        if owner.host != os.uname().nodename:
            raise ConfigError(f"the grid is run by process {owner.pid} on {owner.host}; cancel it there")
        try:
            os.kill(owner.pid, signal.SIGTERM)
            out.print(f"asked process {owner.pid} to stop")
        except ProcessLookupError:
            path.unlink(missing_ok=True)
    active = (
        [each.job for each in look(plan).of("running", "queued") if each.job] if queue.available() else []
    )
    if active:
        queue.call("scancel", *active)
    out.print(
        f"cancelled {len(active)} jobs; finished runs are kept, `secateur grid` with the same words continues"
    )
    return 0


def _plan(given: Arguments, words: tuple[str, ...]) -> Plan:
    name = str(given.one("grid") or "")
    if not name:
        raise ConfigError("grid=NAME is missing; `secateur grid --help` shows how")
    config = load_grid(name)
    if "threads" in given.values:
        config = validate(GridConfig, config.model_dump() | {"threads": given.one("threads")})
    launcher = given.one("launcher", "local")
    if launcher not in ("local", "slurm"):
        raise ConfigError(f"launcher={launcher}: allowed are local and slurm")
    cluster = {key.removeprefix("slurm."): given.one(key) for key in given.values if key.startswith("slurm.")}
    how: dict[str, Any] = {
        "launcher": launcher, "workers": given.one("workers"), "foreign": given.one("foreign", "refuse"),
        "slurm": load_slurm(str(given.one("slurm", "default")), cluster), "typed": words,
    }  # fmt: skip
    _check_choices(how)
    typed = {
        key: values for key, values in given.values.items() if key not in OWN and not key.startswith("slurm.")
    }
    return build(config, _out(given), typed, **how)


def _check_choices(how: dict[str, Any]) -> None:
    if how["foreign"] not in ("refuse", "reuse", "redo"):
        raise ConfigError(f"foreign={how['foreign']}: allowed are refuse, reuse and redo")
    workers = how["workers"]
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ConfigError(f"workers={workers}: a number of at least 1 is expected")


def _chosen(given: Arguments) -> Plan:
    word = given.words[0] if given.words else given.one("grid")
    return choose(_out(given), None if word is None else str(word))


def _out(given: Arguments) -> Path:
    try:
        return Path(str(given.one("out", "runs"))).expanduser().resolve()
    except OSError as error:
        raise StorageError(f"out={given.one('out')}: {error}") from error


def _only(given: Arguments, allowed: set[str]) -> None:
    unknown = sorted(set(given.values) - allowed - {"grid"})
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)}: not possible here; allowed are {', '.join(sorted(allowed))}"
        )
