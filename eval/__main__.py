"""`python -m eval KEY=VALUE ...`: the same as `secateur run`."""

import sys

from secateur import main

sys.exit(main(["run", *sys.argv[1:]]))
