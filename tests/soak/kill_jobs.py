#!/usr/bin/env python3
"""Kills whole jobs at random moments and resumes each on another number of ranks.

After every kill: no step that is on disk is lost by the resume. After the last resume: the trainables and every byte of the
trajectory are those of an undisturbed run. Ends with a summary; status 1 if anything failed.

    tests/soak/kill_jobs.py --count 100
"""
import random
import statistics
import sys
import time

import job

STEPS = 40


def main():
    parser = job.arguments(__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8])
    options = parser.parse_args()
    chance = random.Random(options.seed)
    scratch = job.scratch(options)
    overrides = [f"train.max_steps={STEPS}"]

    whole = scratch / "whole"
    job.remove(whole)
    assert job.Job(options.mezzo, whole, 1, overrides).wait() == 0, whole
    expected = job.info(options.mezzo, whole)["trainables_sha256"]
    expected_trajectory = (whole / "trajectory").read_bytes()

    failures, steps_at_kill = [], []
    kills = runs = 0
    lengths = {}  # ranks: seconds of a whole run

    def check(holds, run, what):
        if not holds:
            failures.append(f"{run}: {what}")
            print("FAILED", failures[-1], flush=True)

    while kills < options.count:
        runs += 1
        run = scratch / f"run-{runs}"
        job.remove(run)
        ranks = chance.choice(options.ranks)
        on_disk, history, finished = 0, [], False
        while not finished:
            started = job.Job(options.mezzo, run, ranks, overrides, name=str(len(history) + 1))
            # A run's whole length is learnt as it goes; at first it is a guess.
            moment = chance.uniform(0.0, 1.1 * lengths.get(ranks, 1.0 + 0.5 * ranks))
            time.sleep(max(0.0, started.start + moment - time.monotonic()))
            if kills < options.count and started.kill():
                kills += 1
                text = started.text()
                check(not started.errors(), run, f"killed, it said {started.errors()}")
            else:
                code = started.wait()
                check(code == 0, run, f"ended with {code}: {started.text()[-400:]}")
                if code == 0 and on_disk == 0:
                    lengths[ranks] = max(lengths.get(ranks, 0.0), time.monotonic() - started.start)
                text = started.text()
                finished = True
            # The step it went on from is said once all is read; earlier kills of the resume leave the target open.
            if "going on from step" in text or "first example" in text:
                check(started.resumed_from() >= on_disk, run,
                      f"{on_disk} steps were on disk, it went on from {started.resumed_from()}")
            step = job.info(options.mezzo, run)["step"] if run.exists() else 0
            check(step >= on_disk, run, f"{on_disk} steps were on disk, now {step}")
            history.append((ranks, round(moment, 2), step))
            on_disk = step
            if not finished:
                steps_at_kill.append(step)
            elif failures and failures[-1].startswith(str(run)):
                break
            ranks = chance.choice([r for r in options.ranks if r != ranks])
        result = job.info(options.mezzo, run)
        good = result.get("trainables_sha256") == expected
        check(good, run, f"other trainables than the undisturbed run's: {history}")
        same = (run / "trajectory").read_bytes() == expected_trajectory
        check(same, run, f"another trajectory than the undisturbed run's: {history}")
        print(f"{kills:4d} kills  run {runs}: (ranks, seconds, steps on disk) {history}", flush=True)
        if good and same:
            job.remove(run)

    at_start = sum(step == 0 for step in steps_at_kill)
    print(f"{kills} kills of {runs} runs; {at_start} before the first step was on disk, the others after a median of "
          f"{statistics.median([s for s in steps_at_kill if s] or [0])} of {STEPS} steps; {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
