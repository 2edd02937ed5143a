"""One measurement of PyTorch on the tutorial network (or torchvision's), as JSON.

    python bench/peer_torch.py --mode train --batch 32 --dtype float32 --format channels_last

The network is residual's resnet18 with the small stem; the training step is
forward, cross-entropy, backward, fused Adam. Inference is traced and frozen, which
folds batch normalisation, or compiled (--compile; with freezing, which folds and
packs weights ahead).
"""

import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F

import alternate


class Block(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet18(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        blocks, width_in = [], 64
        for stage, width in enumerate([64, 128, 256, 512]):
            for i in range(2):
                blocks.append(Block(width_in, width, 2 if stage and not i else 1))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(self.blocks(x).mean((2, 3)))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="tutorial", help="tutorial, or a name of torchvision.models at 224x224, 1000 classes")
    p.add_argument("--mode", default="train", choices=["train", "infer"])
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    p.add_argument("--format", default="channels_last", choices=["channels_last", "contiguous"])
    p.add_argument("--compile", action="store_true", help="torch.compile")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--serve", action="store_true", help="measure at each line of standard input")
    a = p.parse_args()

    start = alternate.peak_memory()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    if a.model == "tutorial":
        size, classes, model = 32, 10, ResNet18()
    else:
        import torchvision

        size, classes, model = 224, 1000, getattr(torchvision.models, a.model)()
    memory = torch.channels_last if a.format == "channels_last" else torch.contiguous_format
    model = model.to(memory_format=memory)
    x = torch.full((a.batch, 3, size, size), 0.5).to(memory_format=memory)
    y = torch.zeros(a.batch, dtype=torch.long)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bfloat16")

    if a.mode == "train":
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7, fused=True)
        forward = torch.compile(model) if a.compile else model

        def step():
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = F.cross_entropy(forward(x).float(), y)
            loss.backward()
            optimizer.step()
    else:
        model.eval().requires_grad_(False)
        # Traced without autocast's cache of weights, as PyTorch's documentation of it asks for.
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bfloat16", cache_enabled=False)
        with torch.no_grad(), autocast:
            if a.compile:
                from torch._inductor import config

                config.freezing = True
                forward = torch.compile(model)
            else:
                forward = torch.jit.freeze(torch.jit.trace(model, x))

        def step():
            with torch.no_grad(), autocast:
                forward(x)

    alternate.answer(step, a.batch, a.runs, a.serve, torch=torch.__version__, start_bytes=start)


if __name__ == "__main__":
    main()
