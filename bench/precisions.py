"""Five tutorial epochs in float32 and bfloat16, ours and PyTorch's: same weights, same batches, over seeds.

    go build -o residual ./cmd/residual
    RESIDUAL_DATA=… python bench/precisions.py ./residual --out DIR

The recipe `tutorial` on the first --train pictures of CIFAR-10, which are written to
DIR as a folder of PNG files, validated on the first --val pictures of the test split;
PyTorch as in tutorial_torch.py. Prints the loss and accuracy of each epoch as mean ±
standard deviation over seeds, and how far the final accuracies of every pair of
programs lie apart in pooled standard deviations. Stopped, the same command goes on.
Needs Python with torch, numpy, pillow and safetensors.
"""

import argparse
import csv
import itertools
import os
import statistics
import subprocess

import numpy as np
import torch
from PIL import Image

from curves import cifar
from tutorial_torch import COLUMNS, first_weights, fit

PRECISIONS = ["float32", "bfloat16"]


def folder(path, split, images, labels):
    """Writes pictures as path/split/<class>/<position>.png, unless they are there, and
    returns them in the order in which residual reads them: by class, then by name."""
    for i, label in enumerate(labels.tolist()):
        file = os.path.join(path, split, str(label), f"{i:05}.png")
        if not os.path.exists(file):
            os.makedirs(os.path.dirname(file), exist_ok=True)
            Image.fromarray(np.round(images[i].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(file)
    positions = torch.argsort(labels, stable=True)
    return images[positions], labels[positions]


def residual(program, data, out, seed, precision):
    if not os.path.exists(os.path.join(out, "result.json")):
        command = ["--resume", out] if os.path.exists(out) else \
            [data, "--recipe=tutorial", f"--seed={seed}", f"--precision={precision}", f"--out={out}", "--save-every=100"]
        subprocess.run([program, "train", *command, "--progress=none"], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(out, "history.csv"), newline="") as f:
        return [[float(row[c]) for c in COLUMNS[1:5]] for row in csv.DictReader(f)]


def mean(values, digits):
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("residual")
    p.add_argument("--out", required=True)
    p.add_argument("--train", type=int, default=5000)
    p.add_argument("--val", type=int, default=2000)
    p.add_argument("--seeds", type=int, default=3, help="two or more")
    p.add_argument("--threads", type=int, default=2, help="of PyTorch")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    source = os.path.join(os.environ["RESIDUAL_DATA"], "cifar10")
    images, labels = cifar(source, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test_images, test_labels = cifar(source, ["test_batch.bin"])
    data = os.path.join(a.out, "pictures")
    train = folder(data, "train", images[:a.train], labels[:a.train])
    val = folder(data, "val", test_images[:a.val], test_labels[:a.val])

    results = {}
    for seed in range(a.seeds):
        for precision in PRECISIONS:
            run = residual(a.residual, data, os.path.join(a.out, f"residual-{precision}-{seed}"), seed, precision)
            results.setdefault(f"residual {precision}", []).append(run)
        for precision in PRECISIONS:
            out = os.path.join(a.out, f"torch-{precision}-{seed}")
            os.makedirs(out, exist_ok=True)
            history = fit(first_weights(a.residual, seed, out), train, val, out, seed, dtype=precision)
            results.setdefault(f"PyTorch {precision}", []).append([row[1:5] for row in history])

    epochs = range(len(next(iter(results.values()))[0]))
    for column, title in [(0, "training loss"), (2, "validation loss"), (3, "validation accuracy")]:
        print(f"| {title}, epoch | " + " | ".join(str(e + 1) for e in epochs) + " |")
        print("|---" * (len(epochs) + 1) + "|")
        for name, runs in results.items():
            print(f"| {name} | " + " | ".join(mean([run[e][column] for run in runs], 4) for e in epochs) + " |")
        print()
    final = {name: [run[-1][3] for run in runs] for name, runs in results.items()}
    for (one, x), (two, y) in itertools.combinations(final.items(), 2):
        pooled = ((statistics.variance(x) + statistics.variance(y)) / 2) ** 0.5
        print(f"{one} - {two}: {statistics.mean(x) - statistics.mean(y):+.4f}, {(statistics.mean(x) - statistics.mean(y)) / pooled:+.2f} pooled deviations")


if __name__ == "__main__":
    main()
