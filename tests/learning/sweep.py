#!/usr/bin/env python3
"""Runs `mezzo train` over a grid of config values, several runs at a time, and writes one JSON line a run.

  python3 tests/learning/sweep.py build/release/src/cli/mezzo CONFIG runs.jsonl --jobs 4 \\
      --set train.max_steps=150 --vary optimizer.learning_rate=1e-2,2e-2 --vary train.seed=1,2,3

A line holds the label, the values, the evaluations as [step, accuracy, loss], the step losses as [step, loss], the
seconds and, of a run that failed, its last words. Lines are appended as runs end; runs of the label whose values
are in the file already are left out, so that a study can be stopped and continued.
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import subprocess
import tempfile
import time


def run(mezzo, config, values, label):
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"{key}={value}" for key, value in values.items()]
        overrides += [f"train.output_dir={folder}/run"]
        start = time.monotonic()
        done = subprocess.run([mezzo, "train", config, "--quiet", *overrides], capture_output=True, text=True)
        result = {"study": label, "values": values, "seconds": round(time.monotonic() - start, 2)}
        result["evaluations"], result["losses"] = [], []
        metrics = f"{folder}/run/metrics.jsonl"
        for line in open(metrics) if os.path.exists(metrics) else []:
            entry = json.loads(line)
            if "eval_loss" in entry:
                result["evaluations"].append([entry["step"], entry.get("eval_accuracy"), entry["eval_loss"]])
            elif "loss" in entry:
                result["losses"].append([entry["step"], entry["loss"]])
        if done.returncode != 0:
            result["failed"] = (done.stderr or done.stdout).strip().splitlines()[-1:]
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mezzo")
    parser.add_argument("config")
    parser.add_argument("output")
    parser.add_argument("--label", default="", help="a name for these runs, written into their lines")
    parser.add_argument("--set", action="append", default=[], help="key=value, the same in all runs")
    parser.add_argument("--vary", action="append", default=[], help="key=a,b,...: one run for each of all")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    fixed = dict(each.split("=", 1) for each in arguments.set)
    axes = [(key, values.split(",")) for key, values in (each.split("=", 1) for each in arguments.vary)]
    grid = [{**fixed, **dict(zip([key for key, _ in axes], choice))}
            for choice in itertools.product(*[values for _, values in axes])]
    there = []
    if os.path.exists(arguments.output):
        lines = [json.loads(line) for line in open(arguments.output)]
        there = [line["values"] for line in lines if line["study"] == arguments.label]
    grid = [values for values in grid if values not in there]
    with open(arguments.output, "a") as output, \
            concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        tasks = [pool.submit(run, arguments.mezzo, arguments.config, values, arguments.label)
                 for values in grid]
        for task in concurrent.futures.as_completed(tasks):
            output.write(json.dumps(task.result()) + "\n")
            output.flush()


if __name__ == "__main__":
    main()
