"""residual and PyTorch alternately on this machine: medians and ratios.

    go build -o residual ./cmd/residual
    python bench/compare.py ./residual --rounds 5            # the tutorial network
    python bench/compare.py ./residual --model resnet50 --batches 32 --inference 32

Each round runs both programs once for each task and precision, one after the
other, so that a machine whose speed drifts drifts for both. PyTorch runs in every
memory format; its best median counts. Needs Python with torch (and torchvision
for other models than the tutorial's). Machines are shared and noisy: quote the
ratios, and where others use the processors too, run with --clock cpu --threads 1:
images per processor-second (PyTorch's threads wait for each other actively, which
counts as processor time).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


def run(command, **env):
    out = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **env})
    return json.loads(out.stdout)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("residual")
    p.add_argument("--model", default="tutorial")
    p.add_argument("--batches", default="32,128")
    p.add_argument("--inference", default="1,32,256")
    p.add_argument("--formats", default="channels_last,contiguous", help="of PyTorch's memory; the best counts")
    p.add_argument("--dtypes", default="float32,bfloat16")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--runs", type=int, default=3, help="steps timed in each round")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    p.add_argument("--winograd", default="auto", help="RESIDUAL_WINOGRAD: off is direct convolution, as PyTorch's")
    a = p.parse_args()

    ours = [a.residual, "bench", "resnet18" if a.model == "tutorial" else a.model, "--layers=false", "--format=json",
            f"--runs={a.runs}", f"--threads={a.threads}"]
    if a.model != "tutorial":
        ours += ["--height=224", "--width=224", "--classes=1000", "--convention=torch"]
    peer = [sys.executable, os.path.join(os.path.dirname(__file__), "peer_torch.py"), f"--model={a.model}",
            f"--runs={a.runs}", f"--threads={a.threads}"]
    tasks = [("train", int(b)) for b in a.batches.split(",") if b] + [("infer", int(b)) for b in a.inference.split(",") if b]
    dtypes = a.dtypes.split(",")
    speeds = {}

    def note(task, name, report):
        speed = task[1] / report["step_cpu_seconds"] if a.clock == "cpu" else report["images_per_second"]
        speeds.setdefault(task, {}).setdefault(name, []).append(speed)

    for round in range(a.rounds):
        for mode, batch in tasks:
            for dtype in dtypes:
                report = run(ours + [f"--batch-size={batch}", f"--precision={dtype}", f"--only={mode}"],
                             RESIDUAL_WINOGRAD=a.winograd)["precisions"][0]
                note((mode, batch), ("residual", dtype, ""), report["training"] if mode == "train" else report["inference"][0])
                for setting in a.formats.split(","):
                    report = run(peer + [f"--mode={mode}", f"--batch={batch}", f"--dtype={dtype}", f"--format={setting}"])
                    note((mode, batch), ("torch " + report["torch"], dtype, setting), report)
        print(f"round {round + 1} of {a.rounds}", file=sys.stderr, flush=True)
    unit = "processor-second" if a.clock == "cpu" else "second"
    print(f"{a.model}, {a.threads} threads, Winograd {a.winograd}, medians of {a.rounds} alternating rounds, images per {unit} [range]")
    for mode, batch in tasks:
        best = {}
        for (who, dtype, setting), v in speeds[mode, batch].items():
            median = statistics.median(v)
            print(f"{mode} batch {batch:<4} {who:16} {dtype:9} {setting:14} {median:8.2f} [{min(v):.2f}, {max(v):.2f}]")
            key = ("residual" if who == "residual" else "torch", dtype)
            best[key] = max(best.get(key, 0), median)
        for dtype in dtypes:
            ratios = ", ".join(f"{best['residual', dtype] / best['torch', other]:.2f} of PyTorch's best {other}" for other in dtypes)
            print(f"{mode} batch {batch:<4} residual {dtype}: {ratios}")


if __name__ == "__main__":
    main()
