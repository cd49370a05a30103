"""`python -m secateur.slurm.bench_grid`: the gradient work of a grid, shared or once per run, with the real commands.

Both sides run here, one after the other, each in one process, with the same sizes. The shared side is the plan that
`secateur grid` makes. On the other side every run has a cache of its own and its pass computes no more than this run
needs. Tokens come from what the passes themselves have counted, seconds from their clocks and from the wall.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from secateur.eval.record import RECORD
from secateur.pruning.errors import SecateurError
from secateur.pruning.files import dumps, read_json
from secateur.slurm.arguments import parse
from secateur.slurm.grid import build, load_grid
from secateur.slurm.plan import Plan
from secateur.slurm.show import console
from secateur.slurm.worker import environment


class BenchError(SecateurError):
    """A task of the benchmark failed."""


LOOP = "import json, sys, secateur.command; sys.exit(max(map(secateur.command.main, json.load(sys.stdin))))"
"""One process that does command after command, so that the start of processes is not what is compared."""


@dataclass(frozen=True)
class Side:
    """What one way of doing the grid has cost.

    Attributes:
        passes: Gradient passes computed.
        gradient_tokens: Tokens that they sent forward, plus tokens that they sent backward.
        prior_tokens: Tokens of the forward passes that measure priors (whole-model equivalents).
        pass_seconds: Time within the passes, priors included.
        wall_seconds: The whole grid, loading and evaluation included.
    """

    passes: int
    gradient_tokens: int
    prior_tokens: int
    pass_seconds: float
    wall_seconds: float


def main(argv: list[str] | None = None) -> int:
    """Run both sides and print the ratios; exit code 1 when the shared side is not five times cheaper."""
    parser = argparse.ArgumentParser(prog="python -m secateur.slurm.bench_grid", description=__doc__)
    parser.add_argument("--grid", default="tiny_sweep45")
    parser.add_argument("--keep", type=Path, help="folder for the runs (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--claim", type=float, default=5.0, help="smallest accepted ratio of gradient tokens")
    parser.add_argument("keys", nargs="*", help="KEY=VALUE for every run, e.g. eval.limit=5 eval=none")
    given = parser.parse_args(argv)
    folder = given.keep or Path(tempfile.mkdtemp(prefix="bench_grid."))
    try:
        figures = compare(given.grid, folder, given.keys)
    except SecateurError as error:
        print(f"bench_grid: {error}", file=sys.stderr)
        return 1
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    console().print(report(figures), markup=False)
    if given.json is not None:
        given.json.write_text(dumps(figures) + "\n", encoding="utf-8")
    return 0 if figures["ratio"]["gradient_tokens"] >= given.claim else 1


def compare(grid: str, folder: Path, keys: list[str]) -> dict[str, dict[str, float]]:
    """Figures of both sides and their ratios."""
    config = load_grid(grid).model_copy(update={"analysis": False, "baselines": False})
    plan = build(config, folder / "shared", dict(parse(keys, set()).values))
    shared, unshared = shared_side(plan), unshared_side(plan, folder / "unshared")
    left, right = asdict(shared), asdict(unshared)
    left["all_tokens"], right["all_tokens"] = (s.gradient_tokens + s.prior_tokens for s in (shared, unshared))
    return {
        "shared": left,
        "unshared": right,
        "ratio": {key: right[key] / max(left[key], 1e-9) for key in left},
    }


def shared_side(plan: Plan) -> Side:
    """The plan as it is: captures, then the runs that reuse them."""
    seconds = _do(plan, [list(task.argv) for task in plan.tasks])
    _check(Path(plan.out), plan)
    return _side(Path(plan.out), seconds)


def unshared_side(plan: Plan, folder: Path) -> Side:
    """Every run with a cache of its own, and only the priors that its method needs."""
    commands: list[list[str]] = []
    for index, task in enumerate(plan.of("run")):
        words = [word for word in task.argv if not word.startswith("out=")]
        commands.append([*words, f"out={folder / str(index)}", "capture.priors=[]"])
    return _side(folder, _do(plan, commands))


def report(figures: dict[str, dict[str, float]]) -> str:
    """The figures as text."""
    names = {
        "passes": "gradient passes",
        "gradient_tokens": "tokens forward + backward",
        "prior_tokens": "tokens for priors",
        "all_tokens": "tokens in all",
        "pass_seconds": "seconds in passes",
        "wall_seconds": "seconds, whole grid",
    }
    lines = [f"{'':<28}{'shared':>12}{'unshared':>12}{'ratio':>8}"]
    for key, name in names.items():
        shared, unshared = figures["shared"][key], figures["unshared"][key]
        digits = ",.1f" if key.endswith("seconds") else ",.0f"
        lines.append(f"{name:<28}{shared:>12{digits}}{unshared:>12{digits}}{figures['ratio'][key]:>7.2f}x")
    return "\n".join(lines)


def _do(plan: Plan, commands: list[list[str]]) -> float:
    """Do commands in one process; return the seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOP], input=dumps(commands), env=environment(plan), check=False, text=True,
        capture_output=True, timeout=7200,
    )  # fmt: skip
    if done.returncode != 0:
        raise BenchError(f"a run failed: {done.stderr.strip()[-800:]}")
    return time.perf_counter() - began


def _check(out: Path, plan: Plan) -> None:
    missing = [task.id for task in plan.of("run") if not (out / task.id / RECORD).is_file()]
    if missing:
        raise BenchError(f"{len(missing)} runs have no record, e.g. {missing[0]}")


def _side(folder: Path, wall: float) -> Side:
    facts = [read_json(path)["facts"] for path in folder.rglob("captures/*/*/capture.json")]
    sums = {key: sum(fact[f"{key}_tokens"] for fact in facts) for key in ("forward", "backward", "prior")}
    return Side(
        passes=len(facts),
        gradient_tokens=sums["forward"] - sums["prior"] + sums["backward"],
        prior_tokens=sums["prior"],
        pass_seconds=sum(fact["seconds"] for fact in facts),
        wall_seconds=wall,
    )


if __name__ == "__main__":
    sys.exit(main())
