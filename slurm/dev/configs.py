"""Texts of the configuration files of the one-machine Slurm (tried with 22.05 on Debian 12)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """Size of the trial cluster.

    Attributes:
        nodes: Number of slurmd daemons.
        cpus: CPUs that each pretends to have.
        gpus: Fake GPUs of each.
        memory: Megabytes of each.
        max_array: Tasks that one array may have.
        extra: Further lines of `slurm.conf`.
    """

    nodes: int = 1
    cpus: int = 8
    gpus: int = 2
    memory: int = 3000
    max_array: int = 1001
    extra: tuple[str, ...] = ()


def slurm_conf(base: Path, port: int, user: str, shape: Shape, everywhere: bool) -> str:
    """`slurm.conf`: no accounting, loopback only, short delays.

    Args:
        base: Folder of the cluster.
        port: First of its block of ports.
        user: Who runs the daemons.
        shape: Its size.
        everywhere: Listen on all interfaces, where this machine's name is not on the loopback.
    """
    communication = "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n" if not everywhere else ""
    last, gpus = shape.nodes, f" Gres=gpu:fake:{shape.gpus}" if shape.gpus else ""
    return f"""ClusterName=trial
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/run/munge.sock,cred_expire=5
SlurmctldPort={port}
{communication}StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.self
SlurmdPidFile={base}/run/slurmd-%n.self
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={base}/log/jobcomp.txt
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=500
ReturnToService=2
SlurmdTimeout=15
KillWait=5
MinJobAge=300
MaxArraySize={shape.max_array}
JobRequeue=1
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_yield_interval=1000000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=n[1-{last}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{port + 11}-{port + 10 + last}] CPUs={shape.cpus} \
RealMemory={shape.memory}{gpus} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES DefaultTime=60 PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=preemptible Nodes=ALL Default=NO DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=5 State=UP
""" + "".join(f"{line}\n" for line in shape.extra)


def gres_conf(base: Path, shape: Shape) -> str:
    """`gres.conf`: GPUs need a device file each, here links to /dev/null."""
    if not shape.gpus:
        return ""
    return f"NodeName=n[1-{shape.nodes}] Name=gpu Type=fake File={base}/dev/nvidia[0-{shape.gpus - 1}]\n"


def cgroup_conf(version: tuple[int, int]) -> str:
    """`cgroup.conf`: slurmd must not look for a cgroup file system."""
    return "CgroupPlugin=disabled\n" if version >= (23, 11) else "CgroupPlugin=cgroup/v1\n"
