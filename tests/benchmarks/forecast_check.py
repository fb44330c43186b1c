#!/usr/bin/env python3
"""What `mezzo estimate` forecasts for some numbers of ranks, beside runs on as many.

    forecast_check.py --mezzo build/release/src/cli/mezzo --ranks 1,2 configs/quickstart.yaml runtime.threads=1

Profiles and short runs take turns, so that both see the same machine. A profile has the median of each part of a step, a
run that of its steps; of all rounds the same quantile counts for both: the middle on a machine that has nothing else to do,
the smallest (0) where other programs run.
"""
import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stderr}")
    return done.stdout


def merged(profiles, q):
    """One profile with the quantile of each part."""
    result = profiles[0]
    parts = result["parts"]
    for key in ("begin_s", "update_s", "hash_s", "host_s"):
        parts[key] = quantile([p["parts"][key] for p in profiles], q)
    for i, forward in enumerate(parts["forwards"]):
        forward["seconds"] = quantile([p["parts"]["forwards"][i]["seconds"] for p in profiles], q)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mezzo", default="mezzo")
    parser.add_argument("--mpirun", default="mpirun --bind-to core", help="with its flags, but for -np")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--steps", type=int, default=20, help="of a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quantile", type=float, default=0.5)
    parser.add_argument("--exchange-us", default="0")
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    ranks = [int(r) for r in args.ranks.split(",")]

    with tempfile.TemporaryDirectory() as folder:
        config = [args.config, *args.overrides, f"train.max_steps={args.steps}", f"train.output_dir={folder}/run"]
        # Only steps: nothing between them, and a line of metrics for each.
        config += ["data.validation=null", "train.logging_steps=1", f"train.save_steps={args.steps}"]
        profiles, steps = [], {r: [] for r in ranks}
        for _ in range(args.rounds):
            profiles.append(json.loads(output_of([args.mezzo, "profile", *config, "--steps", "5", "--json"])))
            for r in ranks:
                launch = [*shlex.split(args.mpirun), "-np", str(r)] if r > 1 else []
                output_of([*launch, args.mezzo, "train", *config, "--overwrite", "train.resume_from_checkpoint=never"])
                lines = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
                ends = [line["seconds"] for line in lines if "loss" in line]
                seconds = [b - a for a, b in zip(ends[2:], ends[3:])]  # behind three that warm up
                steps[r].append(statistics.median(seconds))
        measured = Path(folder, "profile.json")
        measured.write_text(json.dumps(merged(profiles, args.quantile)))
        table = json.loads(output_of([args.mezzo, "estimate", *config, "--ranks", args.ranks, "--measured", str(measured),
                                      "--exchange-us", args.exchange_us, "--json"]))["scaling"]
    alone = quantile(steps[1], args.quantile) if 1 in steps else None
    print("| ranks | forecast s | measured s | measured / forecast | forecast speed-up | measured |\n|---|---|---|---|---|---|")
    for row in table:
        step = quantile(steps[row["ranks"]], args.quantile)
        speed_up = f"{alone / step:.2f}" if alone else ""
        print(f"| {row['ranks']} | {row['step_s']:.6f} | {step:.6f} | {step / row['step_s']:.3f} | {row['speed_up']:.2f} | {speed_up} |")


if __name__ == "__main__":
    main()
