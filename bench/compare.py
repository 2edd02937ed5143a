"""residual and PyTorch alternately on this machine: medians and ratios.

    go build -o residual ./cmd/residual
    python bench/compare.py ./residual --rounds 5            # the tutorial network
    python bench/compare.py ./residual --model resnet50 --batches 32

Each round runs both programs once for each task, one after the other, so that
a machine whose speed drifts drifts for both. PyTorch runs with every setting in
PEER; its best median counts. Needs Python with torch (and torchvision for other
models than the tutorial's). Machines are shared and noisy: quote the ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

PEER = [["--format", "channels_last"], ["--format", "contiguous"]]


def run(command, **env):
    out = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **env})
    return json.loads(out.stdout)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("residual")
    p.add_argument("--model", default="tutorial")
    p.add_argument("--batches", default="32,128")
    p.add_argument("--inference", default="1,32,256")
    p.add_argument("--dtype", default="float32")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--runs", type=int, default=3, help="steps timed in each round")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()

    ours = [a.residual, "bench", "resnet18" if a.model == "tutorial" else a.model, "--layers=false", "--format=json", f"--precision={a.dtype}",
            f"--runs={a.runs}", f"--threads={a.threads}"]
    if a.model != "tutorial":
        ours += ["--height=224", "--width=224", "--classes=1000", "--convention=torch"]
    peer = [sys.executable, os.path.join(os.path.dirname(__file__), "peer_torch.py"), f"--model={a.model}",
            f"--dtype={a.dtype}", f"--runs={a.runs}", f"--threads={a.threads}"]
    tasks = [("train", int(b)) for b in a.batches.split(",") if b] + [("infer", int(b)) for b in a.inference.split(",") if b]
    speeds = {}
    for _ in range(a.rounds):
        for mode, batch in tasks:
            report = run(ours + [f"--batch-size={batch}"])["precisions"][0]
            value = report["training"] if mode == "train" else report["inference"][0 if batch == 1 else 1]
            speeds.setdefault((mode, batch, report["engine"]), []).append(value["images_per_second"])
            for setting in PEER:
                report = run(peer + [f"--mode={mode}", f"--batch={batch}"] + setting)
                name = f"torch {report['torch']} {setting[1]}"
                speeds.setdefault((mode, batch, name), []).append(report["images_per_second"])
    print(f"{a.model}, {a.dtype}, {a.threads} threads, medians of {a.rounds} alternating rounds, images/s")
    for mode, batch in tasks:
        medians = {name: statistics.median(v) for (m, b, name), v in speeds.items() if (m, b) == (mode, batch)}
        best = max(v for name, v in medians.items() if name.startswith("torch"))
        row = "  ".join(f"{name} {v:.1f}" for name, v in medians.items())
        ratio = next(v for name, v in medians.items() if not name.startswith("torch")) / best
        print(f"{mode} batch {batch}: {row}  ratio to the best {ratio:.2f}")


if __name__ == "__main__":
    main()
