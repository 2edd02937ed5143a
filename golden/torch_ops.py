"""Golden file of single ops, from PyTorch, in float64.

    python golden/torch_ops.py                 writes torch_ops.json

Inputs follow rules of formula.py, so that only results are stored. Activations
are [N,H,W,C] in the file and [N,C,H,W] in here.
"""

import numpy as np
import torch
import torch.nn.functional as F

import formula

CASES = []


def values(name, rule, shape, classes=0):
    n = int(np.prod(shape))
    if rule == "u":
        v = formula.u(name, n)
    elif rule == "ties":
        v = formula.ties(name, n)
    elif rule == "unit":
        v = formula.half(name, n)
    elif rule == "labels":
        v = np.floor(classes * formula.half(name, n))
    elif rule == "weight":
        v = formula.weight(name, shape)
    return v.reshape(shape)


def inward(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def outward(x):
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def record(name, op, inputs, call, attributes=None, activations=("x",), fixed=(), extra=lambda: {}):
    """Runs call(inputs by name) → out, and backward from Σ out·dOut (from out itself if
    it is one number). Inputs named in fixed get no gradient; extra returns more outputs."""
    attributes = attributes or {}
    arguments = {}
    for k, (rule, shape) in inputs.items():
        v = values(f"{name}.{k}", rule, shape, attributes.get("classes", 0))
        v = torch.from_numpy(inward(v) if k in activations else v.copy())
        arguments[k] = v if k in fixed else v.requires_grad_()
    out = call(arguments)
    result = outward(out.detach().numpy())
    stored = {k: {"rule": rule, "shape": list(shape)} for k, (rule, shape) in inputs.items()}
    if out.ndim == 0:
        out.backward()
    else:
        stored["dOut"] = {"rule": "u", "shape": list(result.shape)}
        out.backward(torch.from_numpy(inward(values(f"{name}.dOut", "u", result.shape))))
    outputs = {"out": (result, result.shape)}
    for k, v in arguments.items():
        if v.grad is not None:
            g = v.grad.numpy()
            g = outward(g) if k in activations else g
            outputs["d_" + k] = (g, g.shape)
    for k, v in extra().items():
        outputs[k] = (v.numpy(), v.shape)
    CASES.append(
        {"name": name, "op": op, "attributes": attributes, "inputs": stored, "outputs": formula.results(outputs)}
    )


def conv(n, h, w, c, oc, kh, kw, stride, padding):
    top, bottom, left, right = padding
    record(
        f"conv {n}x{h}x{w}x{c} to {oc} kernel {kh}x{kw} stride {stride} padding {top},{bottom},{left},{right}",
        "conv",
        {"x": ("u", (n, h, w, c)), "weight": ("u", (oc, c, kh, kw))},
        lambda a: F.conv2d(F.pad(a["x"], (left, right, top, bottom)), a["weight"], stride=stride),
        {"stride": stride, "padding": list(padding)},
    )


def max_pool(rule, h, w, window, stride, padding):
    record(
        f"max_pool {rule} {h}x{w} window {window} stride {stride} padding {padding}",
        "max_pool",
        {"x": (rule, (2, h, w, 3))},
        lambda a: F.max_pool2d(a["x"], window, stride, padding),
        {"window": window, "stride": stride, "padding": [padding] * 4},
    )


def batch_norm(training, n, h, w, c, epsilon, momentum):
    mode = "training" if training else "inference"
    mean_var = {}

    def call(a):
        mean_var["running_mean"], mean_var["running_var"] = a["running_mean"], a["running_var"]
        return F.batch_norm(
            a["x"], a["running_mean"], a["running_var"], a["weight"], a["bias"], training, momentum, epsilon
        )

    record(
        f"batch_norm {mode} {n}x{h}x{w}x{c} epsilon {epsilon}",
        "batch_norm",
        {"x": ("u", (n, h, w, c)), **{k: ("weight", (c,)) for k in ("weight", "bias", "running_mean", "running_var")}},
        call,
        # running = (1-momentum)·running + momentum·batch, the batch's variance divided by N·H·W-1
        {"training": int(training), "epsilon": epsilon, "momentum": momentum},
        fixed=("running_mean", "running_var"),
        extra=lambda: mean_var if training else {},  # as the call left them
    )


def cross_entropy(n, classes, smoothing, weighted):
    inputs = {"x": ("u", (n, classes)), "labels": ("labels", (n,))}
    if weighted:
        inputs["class_weights"] = ("unit", (classes,))
    record(
        f"cross_entropy {n}x{classes} smoothing {smoothing}{' weighted' if weighted else ''}",
        "cross_entropy",
        inputs,
        lambda a: F.cross_entropy(
            8 * a["x"], a["labels"].long(), weight=a.get("class_weights"), label_smoothing=smoothing
        ),
        # the logits are 8·x; a weighted mean divides by the sum of the labels' weights
        {"classes": classes, "smoothing": smoothing, "logit_scale": 8},
        fixed=("labels", "class_weights"),
    )


def main():
    torch.set_num_threads(1)
    conv(2, 5, 5, 3, 4, 3, 3, 1, (1, 1, 1, 1))
    conv(2, 6, 6, 3, 4, 3, 3, 2, (1, 1, 1, 1))
    conv(2, 6, 6, 3, 4, 3, 3, 2, (0, 1, 0, 1))
    conv(2, 7, 5, 3, 4, 3, 3, 2, (0, 1, 1, 0))
    conv(1, 4, 4, 3, 5, 1, 1, 1, (0, 0, 0, 0))
    conv(3, 5, 6, 4, 3, 1, 1, 2, (0, 0, 0, 0))
    conv(2, 9, 8, 2, 3, 5, 5, 2, (2, 2, 2, 2))
    conv(2, 13, 12, 3, 4, 7, 7, 2, (3, 3, 3, 3))
    conv(1, 6, 7, 2, 3, 3, 5, 1, (1, 0, 2, 2))
    conv(2, 10, 10, 3, 2, 3, 3, 3, (0, 0, 0, 0))
    conv(2, 1, 1, 5, 7, 3, 3, 1, (1, 1, 1, 1))
    conv(1, 2, 2, 33, 17, 3, 3, 1, (1, 1, 1, 1))
    max_pool("u", 8, 8, 3, 2, 1)
    max_pool("ties", 8, 8, 3, 2, 1)
    max_pool("ties", 7, 9, 3, 2, 1)
    max_pool("ties", 6, 6, 2, 2, 0)
    record("global_avg_pool 2x5x3x4", "global_avg_pool", {"x": ("u", (2, 5, 3, 4))}, lambda a: a["x"].mean((2, 3)))
    record(
        "avg_pool 2x6x6x3 window 2 stride 2",
        "avg_pool",
        {"x": ("u", (2, 6, 6, 3))},
        lambda a: F.avg_pool2d(a["x"], 2, 2),
        {"window": 2, "stride": 2, "padding": [0, 0, 0, 0]},
    )
    batch_norm(True, 3, 4, 2, 5, 1e-5, 0.1)
    batch_norm(True, 2, 1, 1, 3, 1e-3, 0.01)
    batch_norm(False, 3, 4, 2, 5, 1e-5, 0.1)
    record(
        "dense 3x7 to 5",
        "dense",
        {"x": ("u", (3, 7)), "weight": ("u", (5, 7)), "bias": ("u", (5,))},
        lambda a: F.linear(a["x"], a["weight"], a["bias"]),
    )
    record("relu 2x3x3x2", "relu", {"x": ("u", (2, 3, 3, 2))}, lambda a: F.relu(a["x"]))
    record("add 2x3x3x2", "add", {"x": ("u", (2, 3, 3, 2)), "y": ("u", (2, 3, 3, 2))}, lambda a: a["x"] + a["y"], activations=("x", "y"))
    record(
        "pad_shortcut 2x5x6x4 to 8 stride 2",
        "pad_shortcut",
        {"x": ("u", (2, 5, 6, 4))},
        lambda a: F.pad(a["x"][:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)),
        {"stride": 2, "channels_before": 2, "channels_after": 2},
    )
    cross_entropy(4, 10, 0.0, False)
    cross_entropy(4, 10, 0.1, False)
    cross_entropy(6, 5, 0.0, True)
    cross_entropy(6, 5, 0.1, True)
    formula.write("torch_ops", {"ops": CASES}, (torch,), "one op each; d_…: gradients of Σ out·dOut, or of out where it is one number")


if __name__ == "__main__":
    main()
