"""Who works on a task: claims by hard link with owner and heartbeat, safe on NFS; dead owners are replaced.

A claim is a file `<folder>/<generation>`. A link creates it for exactly one process. To replace a dead owner, the next
generation is linked, so nothing that another process may just have created is ever removed or overwritten. Whoever sees
another live claim after linking its own withdraws: two owners at once are impossible, and a lost race is tried again.
"""

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import psutil
from pydantic import ValidationError

from secateur.pruning.config import Frozen
from secateur.pruning.errors import StorageError
from secateur.pruning.files import dumps

HEARTBEAT = 20.0
"""Seconds between two signs of life of an owner."""

STALE = 300.0
"""Seconds without a sign of life after which an owner on another machine counts as dead."""


class Owner(Frozen):
    """The process that holds a claim; `started` is in seconds since the machine's boot."""

    host: str
    boot: str
    pid: int
    started: float
    slurm_job: str | None = None
    token: str


class JobLookup(Protocol):
    """Tells whether a Slurm job is still known as queued or running; null when nobody can tell."""

    def __call__(self, job: str) -> bool | None:
        """Whether the job lives."""
        ...


@dataclass(frozen=True)
class Claim:
    """A claim that this process holds."""

    path: Path

    def beat(self) -> None:
        """Give a sign of life (nothing to do when somebody has removed the file by hand)."""
        with suppress(FileNotFoundError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the task up: older generations go first, so that the newest always decides."""
        for path in _generations(self.path.parent):
            if int(path.name) <= int(self.path.name):
                path.unlink(missing_ok=True)


def myself() -> Owner:
    """This process."""
    job = my_job()
    started = _started(os.getpid())
    return Owner(
        host=os.uname().nodename,
        boot=_boot(),
        pid=os.getpid(),
        started=started,
        slurm_job=job,
        token=uuid4().hex,
    )


def acquire(folder: Path, job_lives: JobLookup) -> Claim | None:
    """Try to become the owner of a task.

    Args:
        folder: The task's folder of claims.
        job_lives: Asks the cluster about an owner on another machine.

    Returns:
        The claim, or None while another process holds it.

    Raises:
        StorageError: The folder cannot be written.
    """
    owner = myself()
    for _ in range(20):
        present = _generations(folder)
        if any(_alive(path, job_lives) for path in present):
            return None
        target = folder / str(int(present[-1].name) + 1 if present else 1)
        if not _link(target, owner):
            continue
        others = [path for path in _generations(folder) if path != target]
        if not any(_alive(path, job_lives) for path in others):
            return Claim(target)
        target.unlink(missing_ok=True)
        time.sleep(random.uniform(0.01, 0.2))
    return None


def holder(folder: Path, job_lives: JobLookup) -> Owner | None:
    """The live owner of a task, if there is one."""
    for path in reversed(_generations(folder)):
        owner = _read(path)
        if owner is not None and _alive(path, job_lives):
            return owner
    return None


def _link(target: Path, owner: Owner) -> bool:
    """Create `target` whole and exclusively; a reply lost on NFS is settled by the link count."""
    temporary = target.parent / f".{owner.token}.{random.getrandbits(32):08x}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(dumps(owner.model_dump(mode="json")), encoding="utf-8")
        try:
            os.link(temporary, target)
        except FileExistsError:
            return temporary.stat().st_nlink == 2
        return True
    except OSError as error:
        raise StorageError(
            f"cannot claim a task below {target.parent}: {error}. Is the folder of the runs writable?"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _alive(path: Path, job_lives: JobLookup) -> bool:
    """Whether a claim's owner still lives: its process here, its job on the cluster, else its heartbeat."""
    try:
        seen = path.stat().st_mtime
    except FileNotFoundError:
        return False
    owner = _read(path)
    if owner is None:
        return path.exists() and _server_time(path.parent) - seen < STALE
    if owner.host == os.uname().nodename:
        return owner.boot == _boot() and _process_lives(owner)
    if owner.slurm_job is not None:
        if owner.slurm_job == my_job():
            return False  # this job, before it was requeued from another node
        answer = job_lives(owner.slurm_job)
        if answer is not None:
            return answer
    return _server_time(path.parent) - seen < STALE


def _process_lives(owner: Owner) -> bool:
    try:
        process = psutil.Process(owner.pid)
        return abs(_started(owner.pid) - owner.started) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _started(pid: int) -> float:
    """When a process began: since boot where the kernel tells, so that a clock that is put right changes nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return psutil.Process(pid).create_time()


def _read(path: Path) -> Owner | None:
    try:
        return Owner.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _generations(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _server_time(folder: Path) -> float:
    """Now, by the clock of the file server that also stamps heartbeats."""
    probe = folder / f".now.{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a reader without the right to write: this machine's clock has to do
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def my_job() -> str | None:
    """Id of the Slurm job that this process is; None outside Slurm."""
    if os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


def _boot() -> str:
    """Name of the machine's current boot, so that a process number of before does not count."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else str(int(psutil.boot_time()))
