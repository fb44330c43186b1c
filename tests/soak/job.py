"""Jobs for the soak tests: a small run on the embedded model through the launch scripts, its processes, its trajectory."""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERRIDES = [
    "train.batch_size=6", "train.batch_slices=2", "zo.directions=3", "train.save_steps=7", "train.hash_steps=4",
    "train.logging_steps=1", "data.max_train_examples=40", "data.validation=null", "runtime.threads=1",
    "runtime.device=cpu", "zo.step_limit=null", "optimizer.lr_scheduler_type=constant",
]


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mezzo", default=ROOT / "build/release/src/cli/mezzo", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=100, help="how many jobs to disturb")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and choices")
    parser.add_argument("--folder", type=pathlib.Path, help="for the runs; a temporary one otherwise")
    return parser


def scratch(options):
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        return options.folder.resolve()
    return pathlib.Path(tempfile.mkdtemp(prefix="mezzo-soak."))


class Job:
    """One start of a launch script on a run's folder; standard error goes to RUN.NAME beside it."""

    def __init__(self, mezzo, folder, ranks, overrides=(), launch=None, name="first"):
        self.folder = folder
        self.log = folder.with_suffix("." + name)
        command = launch or [ROOT / "launch/local.sh"]
        command = [*command, "-n", ranks, "configs/quickstart.yaml", f"train.output_dir={folder}", *OVERRIDES, *overrides]
        self.start = time.monotonic()
        with open(self.log, "wb") as log:
            self.script = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                env=os.environ | {"MEZZO": str(mezzo.resolve())}, start_new_session=True)

    def wait(self, timeout=600):
        """The exit code; None, and the end of all, after a hang."""
        try:
            return self.script.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def text(self):
        return self.log.read_text(errors="replace")

    def errors(self):
        return [line for line in self.text().splitlines() if line.startswith("mezzo: error: ")]

    def processes(self):
        """Of the job on this machine, by what they were started with: {pid: name}."""
        found = {}
        mark = f"train.output_dir={self.folder}".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    continue
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            name, state = re.match(r"\d+ \((.*)\) (\S)", stat).groups()
            if state not in "ZX":
                found[int(pid)] = name
        return found

    def rank_process(self, rank):
        for pid, name in self.processes().items():
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if name == "mezzo" and b"OMPI_COMM_WORLD_RANK=%d" % rank in environment:
                return pid
        return None

    def kill(self):
        """All of it, as a power cut would; returns whether the job was still under way."""
        under_way = self.script.poll() is None
        while processes := self.processes():
            for pid in processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.005)
        self.script.wait()
        return under_way

    def resumed_from(self):
        going_on = re.search(r"^going on from step (\d+)$", self.text(), re.M)
        return int(going_on.group(1)) if going_on else 0


def info(mezzo, run):
    """{"step", "trainables_sha256", ...} of a run's folder; step 0 of one without a whole header."""
    done = subprocess.run([mezzo, "info", run, "--json"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"step": 0, "message": done.stderr.strip()}


def remove(run):
    shutil.rmtree(run, ignore_errors=True)
    for log in run.parent.glob(f"{run.name}.*"):
        log.unlink()
