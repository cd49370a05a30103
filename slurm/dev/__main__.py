"""`python -m secateur.slurm.dev up BASE` and `down BASE`: a real Slurm on this machine with fake GPUs, for trials."""

import argparse
import sys
from pathlib import Path

from secateur.pruning.errors import SecateurError
from secateur.slurm.dev.cluster import describe, down, up
from secateur.slurm.dev.configs import Shape

EXAMPLE = """example:
  eval "$(python -m secateur.slurm.dev up /tmp/slurm)"
  secateur grid grid=tiny_sweep launcher=slurm slurm=trial out=/tmp/runs --wait
  python -m secateur.slurm.dev down /tmp/slurm"""


def main(argv: list[str] | None = None) -> int:
    """Start or stop a trial cluster; `up` prints the variables to export."""
    parser = argparse.ArgumentParser(
        prog="python -m secateur.slurm.dev",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["up", "down"])
    parser.add_argument("base", type=Path, help="short path of a new folder, e.g. /tmp/slurm")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=2, help="fake GPUs per node")
    parser.add_argument("--cpus", type=int, default=8, help="pretended CPUs per node")
    given = parser.parse_args(argv)
    try:
        if given.what == "down":
            down(given.base)
        else:
            print(describe(up(given.base, Shape(nodes=given.nodes, gpus=given.gpus, cpus=given.cpus))))
    except SecateurError as error:
        print(f"secateur.slurm.dev: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
