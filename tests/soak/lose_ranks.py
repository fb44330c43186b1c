#!/usr/bin/env python3
"""Kills, stops or cuts off one random rank of a job at a random moment, start-up included.

Every job has to end within the deadline and five seconds, with code 75 and one message that names the rank (a host that was
cut off: one of its ranks, or the host), leave nothing behind and lose no committed step: it goes on from the step that was on
disk, to the same trajectory as all others. Ends with the worst and the median time; status 1 if anything failed. `cut` needs
root and makes three hosts of network namespaces (tests/launch/namespaces.sh).

    tests/soak/lose_ranks.py --count 100
    tests/soak/lose_ranks.py --count 30 --deeds cut
"""
import os
import random
import signal
import statistics
import subprocess
import sys
import time

import job

TIMEOUT = 5.0  # runtime.timeout_s
START = 30.0  # within which Mezzo names a rank that is silent while the job starts
LEAVE = 5.0
NAMESPACES = job.ROOT / "tests/launch/namespaces.sh"
os.environ["MEZZO_TEST_HOSTS"] = "soak"
OVERRIDES = ["train.eval_steps=1000", f"runtime.timeout_s={TIMEOUT:g}", f"runtime.start_timeout_s={START - 5:g}"]


class Soak:
    def __init__(self, options):
        self.options = options
        self.chance = random.Random(options.seed)
        self.scratch = job.scratch(options)
        self.longest = b""  # trajectory of all runs so far: each one's is a beginning of it, or the other way round
        self.failures = []
        self.second_lines = 0  # jobs in which two ranks spoke
        self.times = {}  # (deed, "start" or "run"): seconds from the deed to the script's end

    def check(self, holds, run, what):
        if not holds:
            self.failures.append(f"{run}: {what}")
            print("FAILED", self.failures[-1], flush=True)

    def run_one(self, number, deed):
        run = self.scratch / f"run-{number}"
        job.remove(run)
        cut = deed == "cut"
        launch = None
        ranks = 6 if cut else self.chance.choice([2, 3, 4, 5, 6, 7, 8])
        if cut:
            subprocess.run([NAMESPACES, "up", "3"], check=True)
            hostfile = self.scratch / "hosts"
            hostfile.write_text("".join(f"soak-{host} slots=2\n" for host in (1, 2, 3)))
            os.environ["OMPI_MCA_plm_rsh_agent"] = f"{NAMESPACES} on"
            launch = [NAMESPACES, "on", "soak-1", job.ROOT / "launch/hosts.sh", "-f", hostfile]
        started = job.Job(self.options.mezzo, run, ranks, [*OVERRIDES, "train.max_steps=100000"], launch)
        victim = self.chance.randrange(ranks)
        early = self.chance.random() < 0.35
        while (pid := started.rank_process(victim)) is None and started.script.poll() is None:
            time.sleep(0.005)
        time.sleep(self.chance.uniform(0.0, 1.5) if early else self.chance.uniform(1.5, 6.0))

        first_step = "\nstep 1/" in started.text()
        began = time.monotonic()
        if cut:
            subprocess.run([NAMESPACES, "cut", f"soak-{victim // 2 + 1}"], check=True)
        else:
            os.kill(pid, signal.SIGKILL if deed == "kill" else signal.SIGSTOP)
        # A rank that runs is silent for runtime.timeout_s; one that starts may be waited for by MPI itself.
        bound = (TIMEOUT if first_step else START) + LEAVE
        code = started.wait(bound + 60)
        took = time.monotonic() - began
        self.times.setdefault((deed, "run" if first_step else "start"), []).append(took)
        errors = started.errors()

        self.check(code == 75, run, f"exit code {code}")
        self.check(took <= bound, run, f"ended {took:.1f} s after the deed, at most {bound:g} are allowed")
        self.check(len(errors) == 1, run, f"{len(errors)} messages")
        self.second_lines += "\nmezzo: warning: then: " in started.text()
        if not cut:
            self.check(any(f"rank {victim} " in line for line in errors), run, f"rank {victim} is not named: {errors}")
        else:
            # From one side the other is cut off: from soak-1, where the script is, all others may be.
            self.check(any("soak-" in line or "host" in line for line in errors), run, f"no host is named: {errors}")
            subprocess.run([NAMESPACES, "mend", f"soak-{victim // 2 + 1}"], check=True)
            for _ in range(400):  # ranks that were cut off leave by themselves
                if not started.processes():
                    break
                time.sleep(0.1)
        self.check(not started.processes(), run, f"left behind: {started.processes()}")

        step = job.info(self.options.mezzo, run)["step"] if run.exists() else 0
        resumed = job.Job(self.options.mezzo, run, self.chance.choice([1, 2, 3]), [*OVERRIDES, f"train.max_steps={step + 2}"],
                          name="resume")
        code = resumed.wait()
        self.check(code == 0, run, f"the resume ended with {code}: {resumed.text()[-300:]}")
        self.check(resumed.resumed_from() == step, run, f"{step} steps were on disk, it went on from {resumed.resumed_from()}")
        trajectory = (run / "trajectory").read_bytes() if code == 0 else b""
        short, long = sorted((trajectory, self.longest), key=len)
        self.check(long.startswith(short), run, "another trajectory than the others'")
        self.longest = long
        print(f"{number:4d} {deed:4s} rank {victim} of {ranks} {'after ' + str(step) + ' steps' if first_step else 'at start-up':16s}"
              f" {took:5.2f} s  {errors[0][14:] if errors else ''}", flush=True)
        if not (self.failures and self.failures[-1].startswith(f"{run}:")):
            job.remove(run)


def main():
    parser = job.arguments(__doc__.splitlines()[0])
    parser.add_argument("--deeds", nargs="+", default=["kill", "stop"], choices=["kill", "stop", "cut"])
    options = parser.parse_args()
    soak = Soak(options)
    try:
        for number in range(1, options.count + 1):
            soak.run_one(number, soak.chance.choice(options.deeds))
    finally:
        if "cut" in options.deeds:
            subprocess.run([NAMESPACES, "down"], check=True)
    for (deed, when), times in sorted(soak.times.items()):
        print(f"{deed} in the {when}: {len(times)} jobs, median {statistics.median(times):.2f} s, worst {max(times):.2f} s")
    print(f"{options.count} jobs (runtime.timeout_s {TIMEOUT:g}), {len(soak.failures)} failures; "
          f"two ranks spoke in {soak.second_lines}")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
