"""`python -m secateur.analysis [analyze|show|compare] ...`; without a command it analyses."""

import sys

from secateur.analysis.cli import analyze, compare, show

COMMANDS = {"analyze": analyze, "show": show, "compare": compare}

if __name__ == "__main__":
    words = sys.argv[1:]
    command = COMMANDS.get(words[0]) if words else None
    sys.exit(command(words[1:]) if command else analyze(words))
