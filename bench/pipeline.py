"""What loading, augmentation, statistics and logging cost: residual train beside the bare engine, as a table in Markdown.

    go build -o residual ./cmd/residual
    RESIDUAL_DATA=… python bench/pipeline.py ./residual
    RESIDUAL_DATA=… python bench/pipeline.py ./residual --clock cpu --threads 1

The training phase of "residual train cifar10" (no validation, no checkpoint) against
"residual bench" of the same network, batch and precision. Wall-clock time is the
median of step_seconds in metrics.jsonl, which runs from step to step, so that waiting
for a batch is in it ("by mean steps": the mean, in which rare waits count too). Processor time is that of the whole process: a run of N steps
is subtracted from one of more, so that start and end do not count.
"""

import json
import os
import statistics
import tempfile

import alternate
from alternate import Once

# name: the network of the bench, its convention, batch, precision, steps, and what train is told
ROWS = {
    "tutorial": ("resnet18", "keras", 32, "float32", 16, ["--recipe=tutorial"]),
    "tutorial-bfloat16": ("resnet18", "keras", 32, "bfloat16", 24, ["--recipe=tutorial"]),
    "he2015": ("resnet20", "torch", 128, "float32", 32, ["--recipe=he2015", "--score-test=off"]),
    "he2015-bfloat16": ("resnet20", "torch", 128, "bfloat16", 32, ["--recipe=he2015", "--score-test=off"]),
    # More augmentation on the small network, where it weighs most.
    "he2015-augment": ("resnet20", "torch", 128, "bfloat16", 32,
                       ["--recipe=he2015", "--score-test=off", "--pad-crop=0", "--flip=false", "--translate=4", "--alternating-flip", "--cutout=8"]),
}


class Train:
    def __init__(self, args, batch, precision, steps, options):
        self.args, self.batch, self.steps = args, batch, steps
        self.command = [args.residual, "train", "cifar10", *options, f"--batch-size={batch}", f"--precision={precision}", "--epochs=1", "--limit-val=10",
                        f"--threads={args.threads}", "--progress=none"]

    def once(self, steps):
        """Seconds of each step, and processor time of the process."""
        with tempfile.TemporaryDirectory() as out:
            command = [*self.command, f"--limit-train={steps * self.batch}", f"--out={out}/run"]
            usage = alternate.account(command)
            with open(f"{out}/run/metrics.jsonl") as f:
                events = [json.loads(line) for line in f]
        seconds = [e["step_seconds"] for e in events if e["event"] == "step"]
        if len(seconds) != steps:
            raise RuntimeError(f"{' '.join(command)}: {len(seconds)} steps, want {steps}")
        return seconds, usage.ru_utime + usage.ru_stime

    def measure(self):
        if self.args.clock == "cpu":
            few = self.steps // 4
            _, start = self.once(few)
            _, spent = self.once(self.steps)
            return {"step_cpu_seconds": (spent - start) / (self.steps - few)}
        seconds, _ = self.once(self.steps)
        seconds = seconds[3:]  # the first touch all memory for the first time
        return {"step_seconds": statistics.median(seconds), "mean_step_seconds": statistics.mean(seconds)}

    def close(self):
        pass


def main():
    p = alternate.parser(__doc__)
    args = p.parse_args()
    rows = alternate.Rows(args, f"pipeline-{args.threads}-{args.clock}")
    lines = []
    clock = "step_cpu_seconds" if args.clock == "cpu" else "step_seconds"
    for name, (network, convention, batch, precision, steps, options) in ROWS.items():
        bare = Once([args.residual, "bench", network, f"--convention={convention}", "--only=train", "--layers=false", "--format=json", f"--batch-size={batch}",
                     f"--precision={precision}", f"--threads={args.threads}", f"--runs={steps // 3}"], None, lambda out: json.loads(out)["precisions"][0]["training"])
        reports = rows.row("pipeline-" + name, {"bench": lambda: bare, "train": lambda: Train(args, batch, precision, steps, options)})
        if reports and len(reports) == 2:
            v = {who: [batch / r[clock] for r in rounds] for who, rounds in reports.items()}
            means = [batch / r["mean_step_seconds"] for r in reports["train"] if "mean_step_seconds" in r]
            bare_speed = statistics.median(v["bench"])
            lines.append([f"{name}: {network}, batch {batch}, {precision}", alternate.spread(v["train"]), alternate.spread(v["bench"]),
                          f"{statistics.median(v['train']) / bare_speed:.3f}"] + ([f"{statistics.median(means) / bare_speed:.3f}"] if means else []))
    if lines:
        unit = "processor-second" if args.clock == "cpu" else "second"
        print(f"\nImages per {unit}, {args.threads} threads, {alternate.machine()}: medians of {args.rounds} alternating rounds [range].")
        alternate.table(["", "residual train", "residual bench", "ratio"] + (["by mean steps"] if args.clock == "wall" else []), lines)


main()
