"""`python -m slurm ...` is `secateur grid ...`."""

import sys

import secateur

if __name__ == "__main__":
    sys.exit(secateur.main(["grid", *sys.argv[1:]]))
