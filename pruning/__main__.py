"""`python -m secateur.pruning models|methods`: what exists. A whole run is `secateur run`."""

import sys

from secateur.command import main

sys.exit(main(sys.argv[1:] or ["models"]))
