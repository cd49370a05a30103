"""`python -m secateur.slurm.leash PARENT COMMAND...`: run a command that dies with the one that started it (Linux)."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NO_SUCH_COMMAND = 127
"""Exit code that shells give for a command that cannot be run."""


def die_with_parent(parent: int, sign: signal.Signals) -> None:
    """Ask the kernel to send `sign` to this process when its parent ends, and stop at once if that has happened.

    Args:
        parent: Process id of the parent as it saw itself.
        sign: The signal.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), sign)


def main() -> None:
    """Become the command."""
    die_with_parent(int(sys.argv[1]), signal.SIGKILL)
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (a list of arguments, no shell)
    except OSError as error:
        sys.stderr.write(f"cannot run {sys.argv[2]}: {error.strerror}\n")
        sys.exit(NO_SUCH_COMMAND)


if __name__ == "__main__":
    main()
