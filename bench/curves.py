"""Loss curves of ResNet-20 on CIFAR-10 in float32, bfloat16 and PyTorch: same weights, same batches.

    go build -o residual ./cmd/residual
    RESIDUAL_DATA=… python bench/curves.py ./residual --steps 400 --seeds 3 --torch-seeds 1

The first steps of SGD (learning rate 0.05, momentum 0.9, batch 32) from the weights
and in the order of images that residual draws from a seed. Prints means of the
loss over windows of steps, and the accuracy on test images after the last step.
Needs Python with torch, numpy and safetensors.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "golden"))
from torch_resnet import ResNet20  # noqa: E402

BATCH, RATE, MOMENTUM = 32, 0.05, 0.9
MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def order(seed, epoch, n):
    """internal/random's permutation of an epoch."""
    name = 0xCBF29CE484222325
    for c in b"order":
        name = ((name ^ c) * 0x100000001B3) & MASK
    h = mix((seed + GAMMA) & MASK)
    for i, c in enumerate([name, epoch]):
        h = mix(h ^ mix((c + GAMMA * (i + 2)) & MASK))
    p = list(range(n))
    for i in range(n - 1, 0, -1):
        h = (h + GAMMA) & MASK
        j = mix(h) * (i + 1) >> 64
        p[i], p[j] = p[j], p[i]
    return p


def cifar(directory, files):
    rows = np.concatenate([np.fromfile(os.path.join(directory, f), np.uint8).reshape(-1, 3073) for f in files])
    return torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255), torch.from_numpy(rows[:, 0].astype(np.int64))


def train(residual, out, seed, precision, steps, test, rate=RATE, winograd="auto"):
    """Trains so many steps; returns the losses and the accuracy."""
    command = [residual, "train", "cifar10", "--model=resnet20", "--convention=torch", "--optimizer=sgd", f"--momentum={MOMENTUM}",
               f"--learning-rate={rate}", f"--batch-size={BATCH}", "--epochs=1", "--l2=0", f"--seed={seed}", "--limit-val=100",
               "--progress=none", f"--precision={precision}", f"--out={out}"]
    env = {**os.environ, "RESIDUAL_WINOGRAD": winograd}
    p = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    metrics = os.path.join(out, "metrics.jsonl")
    while p.poll() is None:  # the run ends by itself after an epoch
        time.sleep(1)
        if os.path.exists(metrics) and sum('"event":"step"' in line for line in open(metrics)) >= steps:
            p.send_signal(signal.SIGINT)
            p.wait(600)
    losses = [e["loss"] for e in map(json.loads, open(metrics)) if e["event"] == "step"]
    if len(losses) < steps:
        raise SystemExit(f"{out} has {len(losses)} steps")
    if test == 0:
        return losses, None
    score = subprocess.run([residual, "eval", out, "--split=test", f"--limit={test}", "--format=json", f"--precision={precision}"],
                           env=env, check=True, capture_output=True, text=True)
    return losses, json.loads(score.stdout)["sparse_categorical_accuracy"]


def peer(weights, seed, dtype, steps, test, data):
    torch.manual_seed(0)
    model = ResNet20().to(memory_format=torch.channels_last)
    state = model.state_dict()
    state.update(load_file(weights))
    model.load_state_dict(state)
    images, labels = cifar(data, [f"data_batch_{i}.bin" for i in range(1, 6)])
    positions = order(seed, 0, len(labels))
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16")
    losses = []
    for step in range(steps):
        at = positions[step * BATCH:(step + 1) * BATCH]
        optimizer.zero_grad()
        with autocast:
            loss = F.cross_entropy(model(images[at].contiguous(memory_format=torch.channels_last)).float(), labels[at])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    images, labels = cifar(data, ["test_batch.bin"])
    right = 0
    with torch.no_grad(), autocast:
        for i in range(0, test, 100):
            right += (model(images[i:i + 100]).argmax(1) == labels[i:i + 100]).sum().item()
    return losses, right / test


def main():
    p = argparse.ArgumentParser()
    p.add_argument("residual")
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--torch-seeds", type=int, default=1)
    p.add_argument("--test", type=int, default=2000, help="test images to score")
    p.add_argument("--threads", type=int, default=1, help="of PyTorch")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    results = {}
    with tempfile.TemporaryDirectory() as out:
        for seed in range(1, a.seeds + 1):
            variants = {
                "residual float32": ("float32", "auto"),
                "residual bfloat16": ("bfloat16", "auto"),
                "residual bfloat16, Winograd everywhere": ("bfloat16", "on"),
            }
            for name, (precision, winograd) in variants.items():
                run = os.path.join(out, f"{seed}-{precision}-{winograd}")
                results.setdefault(name, []).append(train(a.residual, run, seed, precision, a.steps, a.test, winograd=winograd))
                print(seed, name, results[name][-1][1], flush=True)
            if seed > a.torch_seeds:
                continue
            # A step of no length leaves the initial weights.
            first = os.path.join(out, f"{seed}-first")
            subprocess.run([a.residual, "train", "cifar10", "--model=resnet20", "--convention=torch", "--optimizer=sgd",
                            "--learning-rate=1e-30", "--epochs=1", "--limit-train=32", "--limit-val=32", "--l2=0", f"--seed={seed}",
                            "--progress=none", f"--out={first}"], check=True, stdout=subprocess.DEVNULL)
            weights = os.path.join(first, "checkpoints", "step-00000001", "model.safetensors")
            for dtype in ["float32", "bfloat16"]:
                name = "PyTorch " + dtype
                results.setdefault(name, []).append(peer(weights, seed, dtype, a.steps, a.test, os.path.join(os.environ["RESIDUAL_DATA"], "cifar10")))
                print(seed, name, results[name][-1][1], flush=True)
    windows = [(0, 1), (1, 10)] + [(i, i + a.steps // 8) for i in range(0, a.steps, a.steps // 8)]
    print("mean loss of steps, first seed")
    print(" " * 40 + "".join(f"{b + 1:>5}-{e:<4}" for b, e in windows))
    for name, runs in results.items():
        print(f"{name:40}" + "".join(f"{statistics.mean(runs[0][0][b:e]):10.4f}" for b, e in windows))
    print("accuracy on test images after the last step, mean and standard deviation over seeds")
    for name, runs in results.items():
        scores = [accuracy for _, accuracy in runs]
        spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        print(f"{name:40} {statistics.mean(scores):.4f} {spread:.4f}  {scores}")


if __name__ == "__main__":
    main()
