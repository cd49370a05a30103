"""`python -m secateur COMMAND ...`: the same as `secateur`."""

import sys

from secateur.command import main

if __name__ == "__main__":
    sys.exit(main())
