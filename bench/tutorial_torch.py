"""The tutorial in PyTorch: ResNet-18 on CIFAR-10 from residual's weights on residual's batches.

    residual train cifar10 -o RUN                     the same with residual
    RESIDUAL_DATA=… python bench/tutorial_torch.py ./residual --out DIR

Five epochs of Adam with batches of 32, validated on the test split after each, as
the recipe `tutorial` does it. The weights and the order of the images are those
that residual draws from the seed. Keras's numbers are set where PyTorch's defaults
differ (padding of stride 2, ε and rate of batch normalisation, Adam's ε, which Keras
adds to the uncorrected root); one difference stays: the variance that enters the
moving one is PyTorch's unbiased one.

DIR/history.csv has Keras's columns and the seconds spent: of the wall clock, and
of processors in training alone. DIR/checkpoint.pt is written every --save-every
steps; the same command continues from it. Needs Python with torch, numpy and
safetensors.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

from curves import cifar, order

BATCH = 32
COLUMNS = ["epoch", "loss", "sparse_categorical_accuracy", "val_loss", "val_sparse_categorical_accuracy", "seconds", "processor_seconds"]


def norm(width):
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class SameConv(nn.Conv2d):
    """3x3 with stride 2 and Keras's padding: nothing before, one pixel after."""

    def __init__(self, width_in, width):
        super().__init__(width_in, width, 3, 2, 0, bias=False)

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Block(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = SameConv(width_in, width) if stride == 2 else nn.Conv2d(width_in, width, 3, 1, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)
        self.downsample = None
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), norm(width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet18(nn.Module):
    """The tutorial's network, with torchvision's names."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = norm(64)
        width_in = 64
        for stage, width in enumerate([64, 128, 256, 512]):
            blocks = []
            for i in range(2):
                blocks.append(Block(width_in, width, 2 if stage and not i else 1))
                width_in = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for stage in [self.layer1, self.layer2, self.layer3, self.layer4]:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def first_weights(residual, seed, out):
    """residual's weights before the first step: those after a step of no length,
    but for the moving statistics, which begin at 0 and 1."""
    run = os.path.join(out, "first")
    if not os.path.exists(run):
        subprocess.run([residual, "train", "cifar10", "--model=resnet18", f"--seed={seed}", "--learning-rate=1e-30", "--epochs=1",
                        "--limit-train=32", "--limit-val=32", "--progress=none", f"--out={run}"], check=True, stdout=subprocess.DEVNULL)
    weights = load_file(os.path.join(run, "checkpoints", "step-00000001", "model.safetensors"))
    for name, value in weights.items():
        if name.endswith("running_mean"):
            value.zero_()
        if name.endswith("running_var"):
            value.fill_(1)
    return weights


def validate(model, images, labels, autocast):
    model.eval()
    loss = right = 0
    with torch.no_grad(), autocast():
        for i in range(0, len(labels), 100):
            logits = model(images[i:i + 100].contiguous(memory_format=torch.channels_last)).float()
            loss += F.cross_entropy(logits, labels[i:i + 100], reduction="sum").item()
            right += (logits.argmax(1) == labels[i:i + 100]).sum().item()
        penalty = 0.01 * model.fc.weight.float().square().sum().item()
    model.train()
    return loss / len(labels) + penalty, right / len(labels)


def fit(weights, train, test, out, seed, epochs=5, dtype="float32", save_every=200, stop_after=0):
    """Trains and writes out/history.csv; goes on from out/checkpoint.pt where there is
    one. train and test are (images, labels). Stops after so many steps of this call,
    unless 0; returns the rows of COLUMNS, fewer than epochs then."""
    os.makedirs(out, exist_ok=True)
    (images, labels), (test_images, test_labels) = train, test
    model = ResNet18()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [m for m in missing if not m.endswith("num_batches_tracked")]
    if missing or unexpected:
        sys.exit(f"weights: missing {missing}, unexpected {unexpected}")
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    at = {"epoch": 0, "step": 0, "loss": 0.0, "right": 0, "seconds": 0.0, "processor": 0.0, "history": []}
    checkpoint = os.path.join(out, "checkpoint.pt")
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        at = saved["at"]

    def save():
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "at": at}, checkpoint + ".new")
        os.replace(checkpoint + ".new", checkpoint)

    def autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16")

    steps, called = -(-len(labels) // BATCH), 0
    log = open(os.path.join(out, "steps.jsonl"), "a", buffering=1)
    while at["epoch"] < epochs:
        positions = order(seed, at["epoch"], len(labels))
        while at["step"] < steps:
            began, used = time.perf_counter(), time.process_time()
            batch = positions[at["step"] * BATCH:(at["step"] + 1) * BATCH]
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                logits = model(images[batch].contiguous(memory_format=torch.channels_last)).float()
            loss = F.cross_entropy(logits, labels[batch]) + 0.01 * model.fc.weight.square().sum()
            loss.backward()
            for group in optimizer.param_groups:
                group["eps"] = 1e-7 / (1 - 0.999 ** (at["epoch"] * steps + at["step"] + 1)) ** 0.5
            optimizer.step()
            at["loss"] += loss.item() * len(batch)
            at["right"] += (logits.argmax(1) == labels[batch]).sum().item()
            at["step"] += 1
            called += 1
            at["seconds"] += time.perf_counter() - began
            at["processor"] += time.process_time() - used
            log.write(json.dumps({"epoch": at["epoch"], "step": at["step"], "loss": loss.item()}) + "\n")
            if at["step"] % save_every == 0:
                save()
            if called == stop_after:
                save()
                return at["history"]
        began = time.perf_counter()
        val_loss, val_accuracy = validate(model, test_images, test_labels, autocast)
        n = len(labels)
        row = [at["epoch"] + 1, at["loss"] / n, at["right"] / n, val_loss, val_accuracy,
               at["seconds"] + time.perf_counter() - began, at["processor"]]
        at["history"].append(row)
        at.update(epoch=at["epoch"] + 1, step=0, loss=0.0, right=0, seconds=0.0, processor=0.0)
        save()
        with open(os.path.join(out, "history.csv"), "w", newline="") as f:
            csv.writer(f).writerows([COLUMNS] + at["history"])
        print(*(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in zip(COLUMNS, row)), flush=True)
    return at["history"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("residual")
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--save-every", type=int, default=200)
    p.add_argument("--steps", type=int, default=0, help="stop after so many steps of this call")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    data = os.path.join(os.environ["RESIDUAL_DATA"], "cifar10")
    train = cifar(data, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test = cifar(data, ["test_batch.bin"])
    os.makedirs(a.out, exist_ok=True)
    fit(first_weights(a.residual, a.seed, a.out), train, test, a.out, a.seed, a.epochs, a.dtype, a.save_every, a.steps)


if __name__ == "__main__":
    main()
