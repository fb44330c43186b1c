#!/usr/bin/env python3
"""Prints a Markdown table of a sweep's runs (sweep.py): a row for each setting, over its seeds.

  python3 tests/learning/summary.py runs.jsonl [--target 0.79] [--at 50,150]
"""
import argparse
import json
import statistics


def accuracy_at(run, step):
    """Of the last evaluation up to `step`, or 0 where the run did not get there."""
    seen = [accuracy for at, accuracy, _ in run["evaluations"] if at <= step]
    reached = run["evaluations"] and run["evaluations"][-1][0] >= step
    return seen[-1] if seen and reached else 0.0


def steps_to(run, target):
    return next((at for at, accuracy, _ in run["evaluations"] if accuracy >= target), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--target", type=float, default=0.79)
    parser.add_argument("--at", default="50,150", help="steps whose accuracies get a column")
    arguments = parser.parse_args()
    runs = [json.loads(line) for path in arguments.runs for line in open(path)]
    columns = [int(step) for step in arguments.at.split(",")]
    varied = {key for run in runs for key in run["values"]}
    varied = sorted(key for key in varied if len({run["values"].get(key) for run in runs}) > 1)
    varied = [key for key in varied if key not in ("train.seed", "train.data_seed")]
    settings = {}
    for run in runs:
        settings.setdefault((run["study"], *[run["values"].get(key, "") for key in varied]), []).append(run)
    heads = ["study", *varied, "seeds", f"steps to {arguments.target}", *[f"at {step}" for step in columns],
             "last, median", "last, worst", "best, median", "best, worst", "failed"]
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * len(heads))
    for setting, of in settings.items():
        reached = sorted(steps_to(run, arguments.target) or 10**9 for run in of)
        middle = reached[len(reached) // 2]
        last = [run["evaluations"][-1][1] if run["evaluations"] else 0.0 for run in of]
        best = [max((accuracy for _, accuracy, _ in run["evaluations"]), default=0.0) for run in of]
        row = [*setting, len(of), middle if middle < 10**9 else "never"]
        row += [f"{statistics.median(accuracy_at(run, step) for run in of):.3f}" for step in columns]
        row += [f"{statistics.median(last):.3f}", f"{min(last):.3f}", f"{statistics.median(best):.3f}",
                f"{min(best):.3f}", sum("failed" in run for run in of)]
        print("| " + " | ".join(str(each) for each in row) + " |")


if __name__ == "__main__":
    main()
