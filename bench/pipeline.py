"""What loading, augmentation, statistics and logging cost: residual train beside the bare engine, as a table in Markdown.

    go build -o residual ./cmd/residual
    RESIDUAL_DATA=… python bench/pipeline.py ./residual
    RESIDUAL_DATA=… python bench/pipeline.py ./residual --clock cpu --threads 1

The training phase of "residual train cifar10" (no validation, no checkpoint) against
"residual bench" of the same network, batch and precision. Wall-clock time is the
median of step_seconds in metrics.jsonl, which runs from step to step, so that waiting
for a batch is in it. Processor time is that of the whole process: a run of N steps
is subtracted from one of more, so that start and end do not count.
"""

import json
import os
import statistics
import subprocess
import tempfile

import alternate
from alternate import Once

# name: the network of the bench, its convention, batch, precision, steps, and what train is told
ROWS = {
    "tutorial": ("resnet18", "keras", 32, "float32", 24, ["--recipe=tutorial"]),
    "tutorial-bfloat16": ("resnet18", "keras", 32, "bfloat16", 40, ["--recipe=tutorial"]),
    "fast": ("resnet20", "torch", 128, "float32", 40, ["--recipe=fast", "--score-test=off"]),
    "fast-bfloat16": ("resnet20", "torch", 128, "bfloat16", 40, ["--recipe=fast", "--score-test=off"]),
    # The augmentation of speedrun94 on the small network, where it weighs most.
    "speedrun94-augment": ("resnet20", "torch", 128, "float32", 40,
                           ["--recipe=fast", "--score-test=off", "--pad-crop=0", "--flip=false", "--translate=4", "--alternating-flip", "--cutout=8"]),
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
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            errors = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{errors[-2000:]}")
            with open(f"{out}/run/metrics.jsonl") as f:
                events = [json.loads(line) for line in f]
        seconds = [e["step_seconds"] for e in events if e["event"] == "step"]
        if len(seconds) != steps:
            raise RuntimeError(f"{' '.join(command)}: {len(seconds)} steps, want {steps}")
        return seconds, usage.ru_utime + usage.ru_stime

    def measure(self):
        few = max(4, self.steps // 5)
        _, start = self.once(few)
        seconds, spent = self.once(self.steps)
        # The first steps touch all memory for the first time.
        return {"step_seconds": statistics.median(seconds[3:]), "step_seconds_mean": statistics.mean(seconds[3:]),
                "step_cpu_seconds": (spent - start) / (self.steps - few)}

    def close(self):
        pass


def main():
    p = alternate.parser(__doc__)
    args = p.parse_args()
    rows = alternate.Rows(args, f"pipeline-{args.threads}")
    lines = []
    clock = "step_cpu_seconds" if args.clock == "cpu" else "step_seconds"
    for name, (network, convention, batch, precision, steps, options) in ROWS.items():
        bare = Once([args.residual, "bench", network, f"--convention={convention}", "--only=train", "--layers=false", "--format=json", f"--batch-size={batch}",
                     f"--precision={precision}", f"--threads={args.threads}", f"--runs={steps // 3}"], None, lambda out: json.loads(out)["precisions"][0]["training"])
        reports = rows.row("pipeline-" + name, {"bench": lambda: bare, "train": lambda: Train(args, batch, precision, steps, options)})
        if reports and len(reports) == 2:
            v = {who: [batch / r[clock] for r in rounds] for who, rounds in reports.items()}
            lines.append([f"{name}: {network}, batch {batch}, {precision}", alternate.spread(v["train"]), alternate.spread(v["bench"]),
                          f"{statistics.median(v['train']) / statistics.median(v['bench']):.3f}"])
    if lines:
        unit = "processor-second" if args.clock == "cpu" else "second"
        print(f"\nImages per {unit}, {args.threads} threads, {alternate.machine()}: medians of {args.rounds} alternating rounds [range].")
        alternate.table(["", "residual train", "residual bench", "ratio"], lines)


main()
