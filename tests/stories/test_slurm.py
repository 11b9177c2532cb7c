"""infra/jobs/*.sbatch on a real Slurm: one controller and two nodes, all three on this machine's loopback.

Debian's slurmctld and slurmd, with a configuration of our own and without authentication (`auth/none`), so that nothing
of the machine's Slurm, if it has one, is touched.
"""

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra import rundir
from pipeline.dataset import Dataset
from tests.support import ceph
from tests.support.drawn import drawn
from tests.support.ports import free_port
from tests.support.story import ROOT, command_line, environment, family, gone, run

pytestmark = pytest.mark.slow
SBIN = "/usr/sbin:/usr/local/sbin"
PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
CONF = """
ClusterName=story
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=10
BatchStartTimeout=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs=2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs=2
PartitionName=story Nodes=n1,n2 Default=YES
"""


@dataclass(frozen=True)
class Slurm:
    """Two nodes of two CPUs. What its jobs start inherits `mark`."""

    folder: Path
    variables: dict[str, str]
    mark: str

    def says(self, *words: object) -> str:
        done = subprocess.run([*map(str, words)], env=self.variables, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *words: object, log: Path) -> str:
        """The job's id."""
        return self.says("sbatch", "--parsable", "--cpus-per-task=2", f"--output={log}", *words)

    def state(self, job: str) -> dict[str, str]:
        shown = self.says("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in shown if "=" in word)

    def ended(self, job: str, log: Path, seconds: float = 150) -> int:
        """Wait for its end; its exit status."""
        deadline, hurried = time.monotonic() + seconds, False
        while (state := self.state(job))["JobState"] not in ("COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT"):
            if state["JobState"] == "PENDING" and state["Restarts"] != "0" and not hurried:
                time.sleep(3)  # Slurm would wait two minutes; in the same second it would refuse its own credential
                self.says("scontrol", "update", f"JobId={job}", "StartTime=now")
                hurried = True
            if time.monotonic() > deadline:
                self.says("scancel", job)
                raise AssertionError(f"{state['JobState']} after {seconds} s\n{log.read_text()[-4000:]}")
            time.sleep(0.3)
        return int(state["ExitCode"].split(":")[0])


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    path = f"{os.environ['PATH']}:{SBIN}"
    if missing := [package for program, package in PACKAGES.items() if shutil.which(program, path=path) is None]:
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(f"NOT TESTED ON SLURM: {', '.join(missing)} not installed; as root: {ceph.INSTALL}")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    controller, n1, n2 = (free_port() for _ in range(3))
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(controller=controller, n1=n1, n2=n2, user=getpass.getuser(), folder=folder))
    mark = folder.name + str(os.getpid())
    variables = environment(mark) | {"SLURM_CONF": str(conf), "ANTIDOTE_CACHE": str(folder / "cache")}
    variables["PATH"] += f":{SBIN}"
    del variables["RAY_AUTH_MODE"]  # the script has to say it
    slurm = Slurm(folder, variables, mark)
    daemons = []
    try:
        for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
            with open(folder / f"{'-'.join(words)}.out", "wb") as out:
                daemons.append(
                    subprocess.Popen(words, env=variables, stdout=out, stderr=out, preexec_fn=ceph.die_with_parent)
                )
        deadline = time.monotonic() + 30
        while subprocess.run(["sinfo", "-h", "-t", "idle", "-o", "%D"], env=variables, capture_output=True).stdout != (
            b"2\n"
        ):
            assert time.monotonic() < deadline, "".join(log.read_text() for log in folder.glob("*.log"))
            time.sleep(0.3)
        yield slurm
        slurm.says("scancel", "--user", getpass.getuser())
        deadline = time.monotonic() + 40
        while slurm.says("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.3)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        gone(family(mark), 60)


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "job.log"


PREPARE = [sys.executable, "pipeline/prepare.py", "picturebook", "--timeout-seconds", 2]
RAY = "infra/jobs/ray.sbatch"


def test_ray_spans_the_nodes_of_a_job_that_goes_back_into_the_queue_and_leaves_nothing_behind(slurm, log, tmp_path):
    out = tmp_path / "data"
    rows = ["--rows", 600, "--rows-per-shard", 20]
    job = slurm.submit(RAY, *PREPARE, "--port", free_port(), *rows, "--out", out, log=log)
    while not list(out.glob("commits/*.json")):
        assert slurm.state(job)["JobState"] in ("PENDING", "RUNNING"), log.read_text()
        time.sleep(0.1)
    secrets = set(filter(None, map(token, family(slurm.mark))))
    assert len(secrets) == 1, "the cluster is open to everybody"
    slurm.says("scancel", "--batch", "--signal=USR1", job)  # what Slurm sends 300 seconds before the end
    assert slurm.ended(job, log) == 0, log.read_text()
    said = log.read_text()
    assert slurm.state(job)["Restarts"] == "1"
    assert said.count("Ray: 2 nodes, 4 CPUs") == 2
    assert "are there already" in said
    made = Dataset.open(str(out))
    assert (len(made.shards), sum(made.outcomes.values())) == (30, 600)
    assert secrets.pop() not in said + slurm.says("scontrol", "show", "job", job)
    assert not list(Path("/tmp").glob(f"antidote-ray-{job}-*"))
    gone([pid for pid in family(slurm.mark) if "ray" in command_line(pid)], 20)


def token(pid: int) -> str | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return None
    found = dict(variable.partition("=")[::2] for variable in variables)
    return found.get("RAY_AUTH_TOKEN") if found.get("RAY_AUTH_MODE") == "token" else None


def test_a_job_on_ray_ends_with_the_status_of_its_command(slurm, log, tmp_path):
    job = slurm.submit(RAY, sys.executable, "pipeline/verify.py", "--dataset", tmp_path / "nothing", log=log)
    assert slurm.ended(job, log) == 2
    assert "no dataset at" in log.read_text()


def test_a_run_on_two_nodes_that_goes_back_into_the_queue_ends_with_the_same_weights(slurm, log, tmp_path):
    drawn(str(tmp_path / "data"), 1920, 4)
    recipe = ["train/pretrain.py", "clip", "--preset", "tiny", "--workers", 0, "--dataset", tmp_path / "data"]
    run("torchrun", "--standalone", "--nproc-per-node", 2, *recipe, "--out", tmp_path / "undisturbed")
    out = tmp_path / "run"
    words = ["--gpus-per-node=0", "infra/jobs/torchrun.sbatch", *recipe, "--checkpoint-steps", 40, "--out", out]
    job = slurm.submit(*words, log=log)
    while not list(out.glob("checkpoints/*/complete.json")):
        assert slurm.state(job)["JobState"] != "FAILED", log.read_text()
        time.sleep(0.1)
    slurm.says("scancel", "--batch", "--signal=USR1", job)
    assert slurm.ended(job, log) == 0, log.read_text()
    assert slurm.state(job)["Restarts"] == "1"
    assert [attempt["ranks"] for attempt in rundir.environment(str(out))["attempts"]] == [2, 2]
    assert rundir.done(str(out)) == rundir.done(str(tmp_path / "undisturbed"))
