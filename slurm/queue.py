"""What the cluster's queue says: jobs of ours, whether one lives, the limits. Every call has a time limit."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from secateur.pruning.errors import SecateurError

SECONDS = 30
"""Patience with the scheduler."""

FIELDS = "%i|%T|%j|%r|%M"


class SlurmError(SecateurError):
    """Slurm is missing, does not answer, or refuses."""


@dataclass(frozen=True)
class Job:
    """One job or array task in the queue.

    Attributes:
        id: `123` or `123_4`.
        state: Slurm's word: PENDING, RUNNING, ...
        name: Name of the job.
        reason: Why it waits.
        time: Time used, in Slurm's notation.
    """

    id: str
    state: str
    name: str
    reason: str
    time: str


def available() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def call(*words: str) -> str:
    """Run one Slurm command and return what it prints.

    Raises:
        SlurmError: It is missing, fails, or does not answer in time.
    """
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError as error:
        raise SlurmError(
            f"{words[0]} is not on this machine; use launcher=local, or a machine with Slurm"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{words[0]} did not answer in {SECONDS} s; is the controller up? (`scontrol ping`)"
        ) from error
    if done.returncode != 0:
        text = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SlurmError(f"{words[0]} refuses: {text}")
    return done.stdout


def jobs() -> dict[str, Job]:
    """Queued and running jobs of this user, array tasks one by one.

    Raises:
        SlurmError: The queue cannot be read.
    """
    lines = call("squeue", "-h", "-r", "--me", "-o", FIELDS).splitlines()
    found = [Job(*(part.strip() for part in line.split("|", 4))) for line in lines if line.count("|") >= 4]
    return {job.id: job for job in found if job.state not in {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT"}}


def lives(job: str) -> bool | None:
    """Whether a job is queued or running; None when the cluster cannot be asked from here."""
    if not available():
        return None
    try:
        lines = call("squeue", "-h", "-r", "-j", job, "-o", "%T").split()
    except SlurmError as error:
        return False if "Invalid job id" in str(error) else None
    return any(state in {"RUNNING", "COMPLETING", "SUSPENDED"} for state in lines)


def max_array_size() -> int:
    """Number of tasks that one array may have here."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    return max(1, int(match.group(1))) if match else 1000


def restarts() -> int:
    """How often this job has been requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
