"""Which batch a comparison in float32 should begin with.

    python golden/margins.py [COUNT]

A ReLU whose input is nearly zero, or a max-pool window with two nearly equal
maxima, may go the other way in float32, and one such flip changes gradients by a
hundredth. For each network this prints, of the first COUNT (256) batches, the
three whose nearest such decision is farthest. The scripts begin with the best.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F

import crosscheck
import formula
import torch_resnet
import torch_variants

nearest = np.inf
relu, max_pool = F.relu, F.max_pool2d


def watched_relu(x, inplace=False):
    global nearest
    nearest = min(nearest, x.abs().min().item())
    return relu(x)


def watched_max_pool(x, kernel_size, stride=None, padding=0, *a, **k):
    global nearest
    n, c, h, w = x.shape
    windows = F.unfold(x.reshape(n * c, 1, h, w), kernel_size, padding=padding, stride=stride or kernel_size)
    top = windows.topk(2, dim=1).values
    top = top[:, 0] - top[:, 1] + (top[:, 0] == 0)  # among zeros the choice has no effect
    nearest = min(nearest, top.min().item())
    return max_pool(x, kernel_size, stride, padding, *a, **k)


def keras_network(blocks, filters, classes):
    shapes = crosscheck.shapes(blocks, filters, classes)
    v = {k: torch.from_numpy(formula.weight(k, s)) for k, s in shapes.items()}
    return lambda x: crosscheck.forward(dict(v), blocks, x, True)


def torch_network(name):
    return torch_resnet.build(name)[0].train()


def variant(name):
    model = torch_variants.NETWORKS[name][0]().double()
    with torch.no_grad():
        for k, v in model.state_dict().items():
            if not k.endswith("num_batches_tracked"):
                v.copy_(torch.from_numpy(formula.weight(torch_variants.our_name(k), tuple(v.shape))))
    return model.train()


def main():
    global nearest
    F.relu, F.max_pool2d = watched_relu, watched_max_pool
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    for what, model, n, size in [
        ("keras_tutorial_narrow", keras_network([2, 2, 2, 2], 8, 10), 8, 32),
        ("torch_resnet20", torch_network("resnet20"), 4, 32),
        ("torch_resnet20, three steps", torch_network("resnet20"), 8, 16),
        ("torch_resnet18", torch_network("resnet18"), 2, 64),
        ("keras_tutorial_full", keras_network([2, 2, 2, 2], 64, 10), 2, 32),
        *((f"torch_{v}", variant(v), n, size) for v, (_, _, n, _, size) in torch_variants.NETWORKS.items()),
    ]:
        margins = {}
        with torch.no_grad():
            for step in range(count):
                nearest = np.inf
                x = torch.from_numpy(formula.images(step, n, size, size)).permute(0, 3, 1, 2).contiguous()
                model(x)
                margins[step] = nearest
        best = sorted(margins, key=margins.get)[::-1][:3]
        print(f"{what:28}", *(f"{b}: {margins[b]:.1e}" for b in best), f"  batch 0: {margins[0]:.1e}", flush=True)


if __name__ == "__main__":
    main()
