#!/usr/bin/env python3
"""Draws accuracy over steps from a sweep's runs (sweep.py): a line for each setting, the median over seeds, and a
band from the worst seed to the best. Needs matplotlib.

  python3 tests/learning/plot.py runs.jsonl accuracy.svg --by optimizer.learning_rate [--study NAME]
"""
import argparse
import json
import statistics

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs")
    parser.add_argument("output")
    parser.add_argument("--by", default="optimizer.learning_rate", help="the key that tells lines apart")
    parser.add_argument("--study", help="only runs of this label")
    parser.add_argument("--title", default="")
    arguments = parser.parse_args()
    lines = {}
    for text in open(arguments.runs):
        run = json.loads(text)
        if arguments.study in (None, run["study"]):
            lines.setdefault(run["values"].get(arguments.by, "default"), []).append(run)
    # The same file for the same runs.
    matplotlib.rcParams["svg.hashsalt"] = "mezzo"
    figure, axes = plt.subplots(figsize=(6, 3.5))
    for name, runs in sorted(lines.items(), key=lambda item: (len(item[0]), item[0])):
        steps = [at for at, _, _ in runs[0]["evaluations"]]
        columns = [[run["evaluations"][i][1] for run in runs] for i in range(len(steps))]
        axes.plot(steps, [statistics.median(column) for column in columns], label=name)
        axes.fill_between(steps, [min(c) for c in columns], [max(c) for c in columns], alpha=0.15)
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy")
    axes.set_title(arguments.title)
    axes.legend(title=arguments.by, fontsize="small")
    figure.savefig(arguments.output, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
