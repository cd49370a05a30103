"""Plans and states as tables on a terminal."""

import shlex

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from secateur.slurm.estimate import duration, estimate
from secateur.slurm.gather import REPORT
from secateur.slurm.overview import ORDER, Overview, TaskView
from secateur.slurm.plan import Plan, Task

KINDS = {"capture": "captures", "baseline": "baselines", "run": "runs", "analysis": "analysis"}
COLOURS = {
    "done": "green", "running": "cyan", "queued": "blue", "waiting": "white", "interrupted": "yellow",
    "blocked": "magenta", "failed": "red",
}  # fmt: skip


def console(stderr: bool = False) -> Console:
    """Where tables go; no colours outside a terminal, and wide enough there that lines stay whole."""
    plain = Console(stderr=stderr, highlight=False)
    return plain if plain.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def plan_table(view: Overview, workers: int | None = None) -> RenderableType:
    """What a grid consists of, per model, and how much of it is left (for how many workers, where that is known)."""
    plan = view.plan
    table = Table()
    for title in ("model", "captures", "baselines", "runs", "done", "left"):
        table.add_column(title, justify="left" if title == "model" else "right")
    models = dict.fromkeys(task.label.split(" ")[0] for task in plan.tasks if task.kind != "analysis")
    for model in models:
        table.add_row(model, *_counts([each for each in view.tasks if each.label.split(" ")[0] == model]))
    if len(models) > 1:
        table.add_section()
        table.add_row("all", *_counts([each for each in view.tasks if each.kind != "analysis"]), style="bold")
    return Group(f"grid {plan.grid}", table, *_remarks(view, workers))


def status_table(view: Overview) -> RenderableType:
    """How far a grid is: counts per kind and condition."""
    used = sum(each.gpu_seconds for each in view.tasks)
    rest = estimate(view)
    caption = [
        f"{used / 3600:.2f} GPU hours used"
        if used
        else f"{duration(sum(e.seconds for e in view.tasks))} of work done"
    ]
    if rest:
        caption.append(f"about {duration(rest)} of work left")
    table = Table()
    table.add_column("")
    for condition in ORDER:
        table.add_column(condition, justify="right", style=COLOURS[condition])
    for kind, name in KINDS.items():
        counts = view.count(kind)
        if counts:
            table.add_row(name, *(str(counts[condition] or "") for condition in ORDER))
    title = Text(f"grid {view.plan.grid} ({view.plan.launcher}) in {view.plan.out}", overflow="fold")
    page = view.plan.folder / REPORT / "report.html"
    parts: list[RenderableType] = [title, table, "; ".join(caption)]
    if page.is_file():
        parts.append(Text(f"report: {page}", overflow="fold"))
    return Group(*parts)


def detail_lines(views: list[TaskView]) -> list[str]:
    """Tasks one by one: what is running, and what went wrong, with the path of the log."""
    lines: list[str] = []
    for each in views:
        what = (each.stage or "") if each.condition == "running" else each.detail
        facts = [what, "" if each.age is None else duration(each.age), f"job {each.job}" if each.job else ""]
        lines.append(f"{each.condition:<12} {each.id}  " + ", ".join(filter(None, facts)))
        if each.condition == "failed" and each.log:
            lines.append(f"{'':<12} log: {each.log}")
    return lines


def live_view(view: Overview) -> RenderableType:
    """Counts and what is running or failed, for a table that is redrawn."""
    table = Table.grid()
    table.add_row(status_table(view))
    rows = view.of("running", "failed")[:20]
    for line in detail_lines(rows):
        table.add_row(Text(line, no_wrap=True, overflow="ellipsis"))
    return table


def event_line(view: Overview, event: str, task: Task, workers: int) -> str:
    """One line of a log per start and end of a task, with how long the rest takes."""
    each = next(each for each in view.tasks if each.id == task.id)
    left = (
        sum(view.count("capture", "baseline", "run").values())
        - view.count("capture", "baseline", "run")["done"]
    )
    if event == "start":
        return f"started  {task.kind:<8} {task.id}"
    text = f"{each.condition:<8} {task.kind:<8} {task.id}"
    if each.condition == "done":
        rest = estimate(view, workers)
        time = f", about {duration(rest)}" if rest else ""
        return f"{text}  {duration(each.last_seconds or 0)}, {left} left{time}"
    return f"{text}  {each.detail}" + (f"  (log: {each.log})" if each.log else "")


def _counts(views: list[TaskView]) -> list[str]:
    kinds = [str(sum(each.kind == kind for each in views)) for kind in ("capture", "baseline", "run")]
    done = sum(each.condition == "done" for each in views)
    return [*kinds, str(done), str(len(views) - done)]


def _remarks(view: Overview, workers: int | None) -> list[str]:
    plan = view.plan
    shared = sum(task.gradient_tokens for task in plan.tasks)
    lines: list[str] = []
    if shared:
        left = _tokens_left(view)
        lines.append(
            f"gradient work: {_tokens(shared)} shared by {len(plan.of('capture'))} passes; one pass per run would be "
            f"{_tokens(plan.unshared_tokens)} ({plan.unshared_tokens / shared:.1f} x)"
            + (f"; {_tokens(left)} left" if left != shared else "")
        )
    done = view.count("capture", "baseline", "run")["done"]
    if done:
        lines.append(f"reused: {done} finished tasks")
    rest = estimate(view, workers or 1)
    if rest:
        how = "one task after another" if workers in (None, 1) else f"{workers} workers side by side"
        lines.append(f"estimate: {duration(rest)} left, {how}")
    elif rest is None:
        lines.append("estimate: unknown until the first tasks are done")
    return lines


def _tokens_left(view: Overview) -> int:
    done = {each.id for each in view.tasks if each.condition == "done"}
    return sum(task.gradient_tokens for task in view.plan.tasks if task.id not in done)


def _tokens(count: int) -> str:
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.1f} {unit} tokens"
    return f"{count} tokens"


def task_lines(plan: Plan) -> list[str]:
    """Every task with its command as one types it, for `--dry-run --tasks`."""
    return [f"{task.kind:<8} {task.id}  {shlex.join(['secateur', *task.argv])}" for task in plan.tasks]
