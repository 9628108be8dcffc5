"""A SLURM cluster of two simulated nodes on this machine, for tests and for trying a profile out.

    python tests/pipeline/slurm/cluster.py install         # Debian's packages, by apt-get
    python tests/pipeline/slurm/cluster.py start FOLDER    # prints what the shell has to export
    python tests/pipeline/slurm/cluster.py stop FOLDER

It needs root, and neither systemd nor cgroups. Configuration, key, sockets, logs and state lie in FOLDER alone, so that
a SLURM or munge that the machine has already is left as it is. Each node has as many CPUs and as much memory as the
profile asks for, whatever the machine has, and two GPUs that are only counted: jobs are given their numbers in
CUDA_VISIBLE_DEVICES, as on a real node, although no CUDA device is there.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("node1", "node2")
PATIENCE = 60.0
"""Seconds that daemons have to start or to end, on a machine that is busy with other things too."""

SLURM_CONF = """\
ClusterName=acf
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# What needs neither cgroups nor a database.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# The CPUs and memory below are believed, whatever the machine has.
SlurmdParameters=config_overrides
ReturnToService=2
# A job is started again only if it asks for it.
JobRequeue=0
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={node1} CPUs=4 RealMemory=32000 Gres=gpu:2
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={node2} CPUs=4 RealMemory=32000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=7-0 DefaultTime=1 State=UP
"""

# A file for each GPU, as SLURM numbers the devices of a job only then; these are never opened.
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"

# In a job, Snakemake takes SLURM_CONF, as every SLURM_ variable, from the environment of the `srun` that it starts.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def obstacle() -> str | None:
    """Return why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    if not installed() and shutil.which("apt-get") is None:
        return "SLURM is not installed, and there is no apt-get to install it by"
    return None


def installed() -> bool:
    """Say whether the daemons are there."""
    return all(map(shutil.which, DAEMONS))


def install() -> None:
    """Install SLURM and munge by apt-get unless they are there; no service is started.

    Raises:
        subprocess.CalledProcessError: the packages cannot be had.
    """
    if installed():
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for words in (("update",), ("install", "--yes", "--no-install-recommends", *PACKAGES)):
        subprocess.run(["apt-get", "-qq", *words], env=environment, stdout=subprocess.DEVNULL, check=True)


def start(folder: Path) -> dict[str, str]:
    """Start a cluster with all its files in `folder`, wait until its nodes are idle, and return what programs need.

    That is SLURM_CONF, and PATH with the `srun` of this cluster in front.

    Raises:
        RuntimeError: a daemon does not start; the message has the ends of the logs, and none is left running.
    """
    folder = folder.resolve()
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "munge.key").write_bytes(secrets.token_bytes(64))
    (folder / "munge.key").chmod(0o600)
    ports = dict(zip(("controller", *NODES), _free_ports(1 + len(NODES)), strict=True))
    configuration = folder / "slurm.conf"
    configuration.write_text(SLURM_CONF.format(folder=folder, **ports))
    (folder / "gres.conf").write_text(GRES_CONF)
    srun = folder / "bin" / "srun"
    srun.write_text(SRUN.format(folder=folder, srun=shutil.which("srun")))
    srun.chmod(0o755)
    variables = {"SLURM_CONF": str(configuration), "PATH": f"{srun.parent}:{os.environ['PATH']}"}
    environment = os.environ | variables
    names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid"}
    names |= {"log-file": "munged.log", "seed-file": "munged.seed"}
    munge = ["munged", "--force", *(f"--{option}={folder / name}" for option, name in names.items())]
    try:
        for command in (munge, ["slurmctld"], *(["slurmd", "-N", node] for node in NODES)):
            subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
        _wait_for_nodes(folder, environment)
    except (subprocess.CalledProcessError, TimeoutError) as error:
        logs = "\n".join(f"{log.name}: {log.read_text()[-1000:]}" for log in sorted(folder.glob("*.log")))
        stop(folder)
        raise RuntimeError(f"the cluster in {folder} does not start: {error}\n{logs}") from error
    return variables


def stop(folder: Path) -> None:
    """Kill the jobs of the cluster in `folder`, then end its daemons and wait until they are gone."""
    folder = folder.resolve()
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with contextlib.suppress(subprocess.TimeoutExpired):
        quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False, "timeout": 10}
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], env=environment, **quietly)
        subprocess.run(["scancel", "--user=root"], env=environment, **quietly)
        _until(lambda: not _lines("squeue", "--noheader", environment=environment), patience=10)
    # munged last: the others authenticate by it.
    for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
        file = folder / f"{name}.pid"
        if not file.exists():
            continue
        number = int(file.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)
            if not _until(lambda number=number: not _alive(number)):
                os.kill(number, signal.SIGKILL)
        file.unlink(missing_ok=True)


def _wait_for_nodes(folder: Path, environment: dict[str, str]) -> None:
    def idle() -> bool:
        if not _alive(int((folder / "slurmctld.pid").read_text())):
            raise TimeoutError("slurmctld has ended")
        return _lines("sinfo", "--noheader", "--Node", "--format=%T", environment=environment) == ["idle"] * len(NODES)

    if not _until(idle):
        raise TimeoutError(f"the nodes are not idle after {PATIENCE:.0f} s")


def _lines(*command: str, environment: dict[str, str]) -> list[str]:
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.stdout.split()


def _until(condition, patience: float = PATIENCE) -> bool:
    end = time.monotonic() + patience
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return met


def _alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> None:
    """Run one command of the three, `install`, `start FOLDER` and `stop FOLDER`."""
    match sys.argv[1:]:
        case ["install"]:
            install()
        case ["start", folder]:
            print("export", *(f"{name}={value}" for name, value in start(Path(folder)).items()))
        case ["stop", folder]:
            stop(Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
