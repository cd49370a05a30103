"""`python -m secateur.slurm ...` is `secateur grid ...`."""

import sys

from secateur.command import main

if __name__ == "__main__":
    sys.exit(main(["grid", *sys.argv[1:]]))
