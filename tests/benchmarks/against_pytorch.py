#!/usr/bin/env python3
"""`mezzo bench` beside PyTorch on the same machine and the same work, one program after the other.

    against_pytorch.py --mezzo build/src/cli/mezzo --anchors DIR [--models llama7b,gptj6b,gpt2]
                       [--shapes 1x128,8x128,16x256] [--n 20] [--json FILE]

DIR holds two programs that print one JSON object a line, with `what`, `shape` and seconds `s`:

    torch_mezo.py --model M --shapes S --n N --lora-only     mezo_lora_NN: a step, one probe after another
                                                             backprop_lora_step: one LoRA step by backpropagation
    torch_batched.py --model M --shapes S --n N              batched_lora_NN: a step, many probes a forward
                     (--no-compile for gptj6b)

Prints a table: the step, its ratio to the GEMM bound of its products, and how often it fits into each of PyTorch's. A program
that fails or runs out of time is named below the table, and what it printed until then counts. Exits with 1 then.
"""
import argparse
import json
import subprocess
import sys
import tempfile

NOT_COMPILED = {"gptj6b"}  # torch.compile does not help it: its attention has no fused form there


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mezzo", required=True, help="the mezzo executable")
    parser.add_argument("--anchors", required=True, help="folder of torch_mezo.py and torch_batched.py")
    parser.add_argument("--models", default="llama7b,gptj6b,gpt2")
    parser.add_argument("--shapes", default="1x128,8x128,16x256")
    parser.add_argument("--n", type=int, default=20, help="two-sided directions a step")
    parser.add_argument("--bench-options", default="--gemm-bound", help="more options of mezzo bench, as --bench-options=...")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch, transformers and peft")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds a program may take")
    parser.add_argument("--json", help="write everything here, too")
    return parser.parse_args()


class Programs:
    """Runs programs and keeps what went wrong."""

    def __init__(self, timeout):
        self.timeout = timeout
        self.failures = []

    def run(self, name, command):
        """Standard output, as far as it came."""
        print(f"running {' '.join(command)}", file=sys.stderr, flush=True)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                status = subprocess.run(command, stdout=out, stderr=err, timeout=self.timeout, check=False).returncode
                problem = f"exit status {status}" if status != 0 else ""
            except subprocess.TimeoutExpired:
                problem = f"not done after {self.timeout:g} s"
            except OSError as error:
                problem = str(error)
            out.seek(0)
            err.seek(0)
            if problem:
                last = [line.strip() for line in err if line.strip()][-1:]
                self.fail(name, ": ".join([problem] + last))
            return out.read()

    def fail(self, name, problem):
        self.failures.append({"program": name, "problem": problem})


def json_lines(text):
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # a library's message, or a line that was cut off
        if isinstance(record, dict):
            records.append(record)
    return records


def run_mezzo(programs, options, model):
    """Results by shape, and what the machine is."""
    text = programs.run(f"mezzo bench {model}",
                        [options.mezzo, "bench", "--json", "--models", model, "--shapes", options.shapes,
                         "--directions", str(options.n), *options.bench_options.split()])
    try:
        report = json.loads(text)
    except json.JSONDecodeError:
        return {}, {}
    results = {}
    for result in report.pop("results"):
        if "error" in result:
            programs.fail(f"mezzo bench {model} {result['shape']}", result["error"])
        else:
            results[result["shape"]] = result
    return results, report


def run_anchors(programs, options, model):
    """Seconds by (what, shape)."""
    common = ["--model", model, "--shapes", options.shapes, "--n", str(options.n)]
    seconds = {}
    for script, more in (("torch_mezo.py", ["--lora-only"]),
                         ("torch_batched.py", ["--no-compile"] if model in NOT_COMPILED else [])):
        text = programs.run(f"{script} {model}", [options.python, f"{options.anchors}/{script}", *common, *more])
        for record in json_lines(text):
            if "shape" in record and isinstance(record.get("s"), (int, float)):
                seconds[record["what"], record["shape"]] = record["s"]
    return seconds


def main():
    options = arguments()
    programs = Programs(options.timeout)
    rows = []
    machine = {}
    for model in options.models.split(","):
        results, report = run_mezzo(programs, options, model)
        machine = report or machine
        anchors = run_anchors(programs, options, model)
        for shape in options.shapes.split(","):
            row = {"model": model, "shape": shape, "mezzo": results.get(shape)}
            for key, what in (("one_by_one_pytorch_s", f"mezo_lora_N{options.n}"),
                              ("batched_pytorch_s", f"batched_lora_N{options.n}"),
                              ("backprop_lora_step_s", "backprop_lora_step")):
                row[key] = anchors.get((what, shape))
            rows.append(row)
        if options.json:  # after each model: a run that is cut off keeps what it has
            with open(options.json, "w") as file:
                json.dump({"machine": machine, "directions": options.n, "rows": rows, "failures": programs.failures},
                          file, indent=1)
                file.write("\n")

    def against(seconds, step):
        if seconds is None:
            return "-"
        return f"{seconds:.4f} s" + (f" = {seconds / step:.2f} × step" if step else "")

    print(f"{machine.get('device', 'mezzo bench failed')}, {machine.get('dtype', '-')}, N = {options.n} two-sided\n")
    print("| model, batch × tokens | step | × GEMM bound | one-by-one PyTorch | batched PyTorch | backprop LoRA step |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        mezzo = row["mezzo"] or {}
        step = mezzo.get("step_s")
        gemm_bound = mezzo.get("step_over_gemm_bound")
        cells = [f"{step:.4f} s" if step else "-", f"{GEMM bound:.3f}" if GEMM bound else "-"]
        for key in ("one_by_one_pytorch_s", "batched_pytorch_s", "backprop_lora_step_s"):
            cells.append(against(row[key], step))
        print(f"| {row['model']} {row['shape'].replace('x', ' × ')} | " + " | ".join(cells) + " |")
    for failure in programs.failures:
        print(f"\nfailed: {failure['program']}: {failure['problem']}")
    return 1 if programs.failures else 0


if __name__ == "__main__":
    sys.exit(main())
