"""`python -m secateur.eval KEY=VALUE ...`: the same as `secateur run`."""

import sys

from secateur.command import main

sys.exit(main(["run", *sys.argv[1:]]))
