"""How many answers bfloat16 changes: ours with each choice of Winograd's algorithm, and PyTorch's.

    residual train cifar10 -o RUN
    RESIDUAL_DATA=… python bench/answers.py ./residual RUN --out DIR

Predicts the first --images pictures of CIFAR-10's test split, which are written to
DIR as PNG files, in float32 and in bfloat16, and prints for each how many classes are
right, how many differ from those in float32 of the same program, and how far the first
class's probability lies from that in float32: the mean and the 99th percentile.
PyTorch takes part where RUN has the tutorial's network. Needs Python with torch,
numpy, pillow and safetensors.
"""

import argparse
import csv
import glob
import json
import os
import subprocess

import torch
from safetensors.torch import load_file

from curves import cifar
from precisions import folder
from tutorial_torch import ResNet18


def residual(program, run, pictures, precision, winograd):
    """The predicted classes, their probabilities and the labels."""
    out = subprocess.run([program, "predict", run, pictures, "--format=csv", "--topk=1", f"--precision={precision}"],
                         env={**os.environ, "RESIDUAL_WINOGRAD": winograd}, check=True, capture_output=True, text=True).stdout
    rows = list(csv.DictReader(out.splitlines()))
    labels = [int(row["filename"].split(os.sep)[-2]) for row in rows]
    return torch.tensor([int(row["index"]) for row in rows]), torch.tensor([float(row["prob"]) for row in rows]), torch.tensor(labels)


def pytorch(run, images, labels, precision):
    model = ResNet18().to(memory_format=torch.channels_last).eval()
    weights = max(glob.glob(os.path.join(run, "checkpoints", "step-*", "model.safetensors")))
    model.load_state_dict(load_file(weights), strict=False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        logits = [model(part.contiguous(memory_format=torch.channels_last)).float() for part in images.split(100)]
    probabilities, classes = torch.cat(logits).softmax(1).max(1)
    return classes, probabilities, labels


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("residual")
    p.add_argument("run")
    p.add_argument("--out", required=True)
    p.add_argument("--images", type=int, default=10000)
    p.add_argument("--threads", type=int, default=2, help="of PyTorch")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    images, labels = cifar(os.path.join(os.environ["RESIDUAL_DATA"], "cifar10"), ["test_batch.bin"])
    images, labels = folder(a.out, "val", images[:a.images], labels[:a.images])

    def ours(precision, winograd):
        return lambda: residual(a.residual, a.run, os.path.join(a.out, "val"), precision, winograd)

    programs = {"residual": {"float32": ours("float32", "auto")} |
                {f"bfloat16, {mode}": ours("bfloat16", mode) for mode in ["off", "2x2", "4x4-float32", "auto"]}}
    with open(os.path.join(a.run, "config.json")) as f:
        config = json.load(f)
    if config["recipe"] == "tutorial" and config["model"]["name"] == "resnet18":
        programs["PyTorch"] = {precision: lambda precision=precision: pytorch(a.run, images, labels, precision) for precision in ["float32", "bfloat16"]}

    print("| | right | other than float32 | probability, mean | 99th percentile |")
    print("|---|---|---|---|---|")
    for name, ways in programs.items():
        wide = None
        for way, answer in ways.items():
            classes, probabilities, truth = answer()
            wide = wide or (classes, probabilities)
            off = (probabilities - wide[1]).abs()
            print(f"| {name}, {way} | {(classes == truth).sum()} | {(classes != wide[0]).sum()} | {off.mean():.5f} | {off.quantile(0.99):.4f} |", flush=True)


if __name__ == "__main__":
    main()
