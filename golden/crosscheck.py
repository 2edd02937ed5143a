"""Computes the tutorial network of the Keras golden files in PyTorch too.

    python golden/crosscheck.py narrow|full [float32]

Prints how far the two are apart. In float64 that is what two independent, correct
implementations differ by, hence the least tolerance that makes sense; with
float32, what a correct float32 implementation may differ from the files by.
Writes nothing.
"""

import json
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

import formula


def shapes(blocks, filters, classes):
    out = {}

    def norm(name, c):
        for k in ("weight", "bias", "running_mean", "running_var"):
            out[f"{name}.{k}"] = (c,)

    out["conv1.weight"] = (filters, 3, 3, 3)
    norm("bn1", filters)
    c = filters
    for s, count in enumerate(blocks):
        oc = filters << s
        for b in range(count):
            p = f"layer{s + 1}.{b}."
            out[p + "conv1.weight"] = (oc, c, 3, 3)
            norm(p + "bn1", oc)
            out[p + "conv2.weight"] = (oc, oc, 3, 3)
            norm(p + "bn2", oc)
            if c != oc:
                out[p + "downsample.0.weight"] = (oc, c, 1, 1)
                norm(p + "downsample.1", oc)
            c = oc
    out["fc.weight"], out["fc.bias"] = (classes, c), (classes,)
    return out


def forward(v, blocks, x, training):
    """Keras's network; updates the moving statistics in v when training."""

    def conv(x, name, stride=1):
        w = v[name + ".weight"]
        total = max((-(-x.shape[2] // stride) - 1) * stride + w.shape[2] - x.shape[2], 0)
        before, after = total // 2, total - total // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), w, stride=stride)

    def norm(x, name):
        mean, var = v[name + ".running_mean"], v[name + ".running_var"]
        if training:
            now, spread = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            v[name + ".running_mean"] = 0.99 * mean + 0.01 * now.detach()
            v[name + ".running_var"] = 0.99 * var + 0.01 * spread.detach()
            mean, var = now, spread
        scale = v[name + ".weight"] / torch.sqrt(var + 1e-3)
        return (x - mean[:, None, None]) * scale[:, None, None] + v[name + ".bias"][:, None, None]

    x = F.relu(norm(conv(x, "conv1"), "bn1"))
    for s, count in enumerate(blocks):
        for b in range(count):
            p = f"layer{s + 1}.{b}."
            stride = 2 if s > 0 and b == 0 else 1
            y = F.relu(norm(conv(x, p + "conv1", stride), p + "bn1"))
            y = norm(conv(y, p + "conv2"), p + "bn2")
            if p + "downsample.0.weight" in v:
                x = norm(conv(x, p + "downsample.0", stride), p + "downsample.1")
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), v["fc.weight"], v["fc.bias"])


def error(got, want):
    """Digest.Compare of golden.go."""
    rms = want["norm"] / want["n"] ** 0.5
    pairs = [(got["norm"], want["norm"], want["norm"])]
    pairs += [(a, b, want["norm"]) for a, b in zip(got["proj"], want["proj"])]
    pairs += [(a, b, max(rms, abs(b))) for a, b in zip(got["at"], want["at"])]
    return max(0.0 if a == b else abs(a - b) / s for a, b, s in pairs)


def main():
    case = f"keras_tutorial_{sys.argv[1]}"
    dtype = torch.float32 if "float32" in sys.argv else torch.float64

    def load(suffix=""):
        with open(os.path.join(formula.HERE, case + suffix + ".json"), encoding="utf-8") as f:
            return json.load(f)

    want = load()
    net = want["network"]
    n, blocks = net["batch"], net["blocks"]
    v = {
        k: torch.from_numpy(formula.weight(k, s)).to(dtype)
        for k, s in shapes(blocks, net["filters"], net["classes"]).items()
    }
    trained = [k for k in v if "running" not in k]
    moments = {k: (torch.zeros_like(v[k]), torch.zeros_like(v[k])) for k in trained}

    def batch(step):
        step += net["first_batch"]
        x = torch.from_numpy(formula.images(step, n, net["height"], net["width"])).to(dtype)
        return x.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(formula.labels(step, n, net["classes"]))

    def report(what, tensors, digests):
        assert list(tensors) == list(digests), f"{what}: other tensors"
        errors = {k: error(formula.digest(k, t.detach().numpy()), digests[k]) for k, t in tensors.items()}
        worst = max(errors, key=errors.get)
        print(f"{what:32} {errors[worst]:.1e}  {worst}")

    def elements(what, got, want):
        got, want = np.asarray(got, dtype=np.float64).ravel(), np.asarray(want)
        scale = np.maximum(np.abs(want), np.sqrt(np.mean(want * want)))
        print(f"{what:32} {np.max(np.abs(got - want) / scale):.1e}")

    with torch.no_grad():
        elements("logits/inference", forward(v, blocks, batch(0)[0], False), want["values"]["logits/inference"])
    losses = []
    for step in range(want["optimizer"]["steps"]):
        for k in trained:
            v[k] = v[k].detach().requires_grad_()
        x, y = batch(step)
        logits = forward(v, blocks, x, True)
        loss = F.cross_entropy(logits, y) + net["l2"] * (v["fc.weight"] ** 2).sum()
        losses.append(loss.item())
        gradients = dict(zip(trained, torch.autograd.grad(loss, [v[k] for k in trained])))
        if step == 0:
            elements("logits/training", logits.detach(), want["values"]["logits/training"])
            report("gradients", gradients, want["digests"]["gradients"])
        t = step + 1
        rate = 1e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        with torch.no_grad():
            for k, g in gradients.items():
                m, s = moments[k]
                m += (g - m) * (1 - 0.9)
                s += (g * g - s) * (1 - 0.999)
                v[k] = v[k] - rate * m / (s.sqrt() + 1e-7)
        if t in (1, want["optimizer"]["steps"]):
            report(f"variables after step {t}", v, load(f".step{t}")["digests"]["variables"])
    elements("losses", losses, want["values"]["losses"])
    with torch.no_grad():
        after = forward(v, blocks, batch(0)[0], False)
    elements("logits/inference after step 10", after, want["values"]["logits/inference after step 10"])


if __name__ == "__main__":
    main()
