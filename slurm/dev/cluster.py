"""Bring a one-machine Slurm up and take it down again: no systemd, nothing outside its folder."""

import fcntl
import getpass
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from secateur.pruning.errors import SecateurError
from secateur.slurm.dev.configs import Shape, cgroup_conf, gres_conf, slurm_conf

WAIT = 60.0
"""Seconds that the nodes get to become idle."""

LONGEST = 70
"""Characters of the folder's path: Unix sockets have short names."""

PORTS = range(17000, 30000, 50)
PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "scontrol", "scancel")
INSTALL = "apt-get install -y --no-install-recommends slurm-wlm munge"


class ClusterError(SecateurError):
    """The trial cluster cannot be brought up."""


def missing_programs() -> list[str]:
    """Programs of Slurm that are not installed."""
    return [name for name in PROGRAMS if _which(name) is None]


def up(base: Path, shape: Shape | None = None) -> dict[str, str]:
    """Start munged, slurmctld and the slurmd daemons below a new folder.

    Args:
        base: A folder that does not exist yet, or is empty.
        shape: Size of the cluster.

    Returns:
        Environment variables that make Slurm's commands talk to it.

    Raises:
        ClusterError: Slurm is not installed, the folder is in use, or the nodes do not come up.
    """
    shape = shape or Shape()
    base = base.resolve()
    _check(base)
    for name in ("etc", "run", "log", "state", "spool", "dev", "key"):
        (base / name).mkdir(parents=True, mode=0o755)
    (base / "owner").write_text(f"{os.getpid()}\n")
    for index in range(shape.gpus):
        (base / "dev" / f"nvidia{index}").symlink_to("/dev/null")
    for node in range(1, shape.nodes + 1):
        (base / "spool" / f"n{node}").mkdir()
    lock, port = _ports(shape.nodes)
    environment = {"SLURM_CONF": str(base / "etc" / "slurm.conf"), "SLURM_TRIAL_BASE": str(base)}
    try:
        text = slurm_conf(base, port, getpass.getuser(), shape, everywhere=not _name_is_loopback())
        (base / "etc" / "slurm.conf").write_text(text)
        (base / "etc" / "gres.conf").write_text(gres_conf(base, shape))
        (base / "etc" / "cgroup.conf").write_text(cgroup_conf(_version()))
        _munge(base)
        env = {**os.environ, **environment}
        _daemon(base, "slurmctld", [_need("slurmctld"), "-D", "-i", "-f", environment["SLURM_CONF"]], env)
        for node in range(1, shape.nodes + 1):
            words = [_need("slurmd"), "-D", "-N", f"n{node}", "-f", environment["SLURM_CONF"]]
            _daemon(base, f"slurmd-n{node}", words, env)
        _await_nodes(base, shape, env)
    except (SecateurError, OSError, subprocess.SubprocessError) as error:
        down(base)
        raise (
            error if isinstance(error, SecateurError) else ClusterError(f"the cluster did not start: {error}")
        ) from error
    finally:
        os.close(lock)
    return environment


def down(base: Path) -> None:
    """Stop the daemons and every process of their jobs; remove the folder if `up` made it."""
    base = base.resolve()
    if not (base / "owner").is_file():
        return
    mine = f"SLURM_CONF={base / 'etc' / 'slurm.conf'}".encode()
    env = {**os.environ, "SLURM_CONF": str(base / "etc" / "slurm.conf")}
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [_need("scancel"), "--user", getpass.getuser()],
            env=env,
            check=False,
            timeout=5,
            capture_output=True,
        )
        time.sleep(0.2)
    daemons = [int(path.read_text()) for path in (base / "run").glob("*.pid")]
    for sign, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        _signal_all(daemons, mine, sign)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _ours(daemons, mine):
            time.sleep(0.05)
    shutil.rmtree(base, ignore_errors=True)


def _check(base: Path) -> None:
    missing = missing_programs()
    if missing:
        raise ClusterError(f"{', '.join(missing)} not found; install Slurm: {INSTALL}")
    if len(str(base)) > LONGEST:
        raise ClusterError(
            f"{base}: the path has more than {LONGEST} characters; choose a shorter one, e.g. /tmp/slurm"
        )
    if base.exists() and any(base.iterdir()):
        raise ClusterError(
            f"{base} is not empty; choose a new folder, or `python -m secateur.slurm.dev down {base}` first"
        )


def _munge(base: Path) -> None:
    key = base / "key" / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    (base / "key").chmod(0o700)
    words = [
        _need("munged"), "--foreground", f"--key-file={key}", f"--socket={base}/run/munge.sock",
        f"--pid-file={base}/run/munged.self", f"--log-file={base}/log/munged.log",
        f"--seed-file={base}/key/seed", "--force",
    ]  # fmt: skip
    _daemon(base, "munged", words, dict(os.environ))
    deadline = time.monotonic() + 10
    while not (base / "run" / "munge.sock").exists():
        if time.monotonic() > deadline:
            raise ClusterError(f"munged did not start: {_tail(base / 'log' / 'munged.out')}")
        time.sleep(0.02)


def _daemon(base: Path, name: str, words: list[str], env: dict[str, str]) -> None:
    with (base / "log" / f"{name}.out").open("wb") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True, cwd=base
        )
    (base / "run" / f"{name}.pid").write_text(str(process.pid))


def _await_nodes(base: Path, shape: Shape, env: dict[str, str]) -> None:
    deadline = time.monotonic() + WAIT
    said = ""
    while time.monotonic() < deadline:
        words = [_need("sinfo"), "-h", "-N", "-p", "gpu", "-o", "%t"]
        answer = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=20)
        states = answer.stdout.split()
        said = " ".join(states) or answer.stderr.strip()
        if states == ["idle"] * shape.nodes:
            return
        time.sleep(0.1)
    logs = _tail(base / "log" / "slurmctld.log") + _tail(base / "log" / "slurmd-n1.log")
    raise ClusterError(f"the nodes did not become idle in {WAIT:.0f} s ({said}):\n{logs}")


def _signal_all(daemons: list[int], mine: bytes, sign: signal.Signals) -> None:
    for process in _ours(daemons, mine):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(sign)


def _ours(daemons: list[int], mine: bytes) -> list[psutil.Process]:
    """The daemons, their children, and every process of a job: those carry SLURM_CONF of this cluster."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with suppress(psutil.Error, OSError):
            text = Path(f"/proc/{process.pid}/environ").read_bytes()
            job = mine in text.split(b"\0") and (
                b"SLURM_JOB_ID=" in text or process.name() in {"slurmctld", "slurmd", "slurmstepd"}
            )
            if process.status() != psutil.STATUS_ZOMBIE and (
                job or (process.pid in daemons and process.name() in PROGRAMS)
            ):
                found.append(process)
    return found


def _ports(nodes: int) -> tuple[int, int]:
    """A free block of ports, and the lock that keeps two clusters from choosing the same one."""
    lock = os.open("/tmp/secateur-trial.lock", os.O_RDWR | os.O_CREAT, 0o666)  # noqa: S108  (shared by all users here)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for port in PORTS:
        if all(_free(number) for number in (port, *range(port + 11, port + 11 + nodes))):
            return lock, port
    raise ClusterError("no free block of ports between 17000 and 30000")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _name_is_loopback() -> bool:
    try:
        return socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        return False


def _version() -> tuple[int, int]:
    text = subprocess.run(
        [_need("slurmctld"), "-V"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else (22, 5)


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def _need(name: str) -> str:
    path = _which(name)
    if path is None:
        raise ClusterError(f"{name} not found; install Slurm: {INSTALL}")
    return path


def _tail(path: Path, size: int = 1500) -> str:
    return path.read_text(errors="replace")[-size:] if path.is_file() else ""


def describe(environment: dict[str, str]) -> str:
    """Shell lines that a person evaluates."""
    return "\n".join(f"export {key}={json.dumps(value)}" for key, value in environment.items())
