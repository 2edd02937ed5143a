"""Golden files of the variants, from PyTorch and timm, in float64, and counts.

    python golden/torch_variants.py            writes torch_counts.json and one file for each variant

resnetd and preact are timm's classes with few blocks; wrn, resnet9 and resnet8w are
written here after their reference code: szagoruyko/wide-residual-networks
(pytorch/resnet.py), davidcpage/cifar10-fast (dawn.py) and KellerJordan/cifar10-airbench
(airbench94.py, with the shortcut of airbench96.py and ReLU).
"""

import re

import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnet import Bottleneck, ResNet
from timm.models.resnetv2 import ResNetV2
from torch import nn

import formula
import torch_resnet

MODULES = (torch, torchvision, timm)


class WideBlock(nn.Module):
    def __init__(self, c, oc, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c)
        self.conv1 = nn.Conv2d(c, oc, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(oc)
        self.conv2 = nn.Conv2d(oc, oc, 3, 1, 1, bias=False)
        if c != oc:
            self.downsample = nn.Sequential(nn.Conv2d(c, oc, 1, stride, bias=False))

    def forward(self, x):
        o = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(o))))
        return y + (self.downsample(o) if hasattr(self, "downsample") else x)


class WRN(nn.Module):
    """WRN-depth-width: depth = 6n + 4."""

    def __init__(self, depth, width, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        c = 16
        for s, oc in enumerate([16 * width, 32 * width, 64 * width]):
            stage = []
            for b in range((depth - 4) // 6):
                stage.append(WideBlock(c, oc, 2 if s > 0 and b == 0 else 1))
                c = oc
            setattr(self, f"layer{s + 1}", nn.Sequential(*stage))
        self.norm = nn.BatchNorm2d(c)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(F.relu(self.norm(x)).mean((2, 3)))


def conv_bn(c, oc):
    unit = nn.Sequential()
    unit.add_module("conv", nn.Conv2d(c, oc, 3, 1, 1, bias=False))
    unit.add_module("bn", nn.BatchNorm2d(oc))
    unit.add_module("relu", nn.ReLU())
    return unit


class ResNet9(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.prep = conv_bn(3, width)
        for s in (1, 2, 3):
            layer = conv_bn(width << (s - 1), width << s)
            layer.add_module("pool", nn.MaxPool2d(2))
            if s != 2:
                layer.residual = nn.Module()
                layer.residual.res1 = conv_bn(width << s, width << s)
                layer.residual.res2 = conv_bn(width << s, width << s)
            setattr(self, f"layer{s}", layer)
        self.fc = nn.Linear(width << 3, 10, bias=False)

    def forward(self, x):
        x = self.prep(x)
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer.pool(layer.relu(layer.bn(layer.conv(x))))
            if hasattr(layer, "residual"):
                x = x + layer.residual.res2(layer.residual.res1(x))
        return self.fc(F.max_pool2d(x, 4).flatten(1)) * 0.125


class ResNet8W(nn.Module):
    """A whitening convolution whose kernel is not trained, and stages of a convolution,
    a max-pool and a residual unit of one convolution; γ is not trained either."""

    def __init__(self, width=64):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        c = 24
        for s, oc in enumerate([width, 4 * width, 4 * width]):
            layer = nn.Module()
            layer.conv = nn.Conv2d(c, oc, 3, 1, 1, bias=False)
            layer.bn = nn.BatchNorm2d(oc, momentum=0.4)
            layer.residual = nn.Module()
            layer.residual.conv = nn.Conv2d(oc, oc, 3, 1, 1, bias=False)
            layer.residual.bn = nn.BatchNorm2d(oc, momentum=0.4)
            for bn in (layer.bn, layer.residual.bn):
                bn.weight.requires_grad_(False)
            setattr(self, f"layer{s + 1}", layer)
            c = oc
        self.fc = nn.Linear(c, 10, bias=False)

    def forward(self, x):
        x = F.relu(self.whiten(F.pad(x, (0, 1, 0, 1))))
        for layer in (self.layer1, self.layer2, self.layer3):
            x = F.relu(layer.bn(F.max_pool2d(layer.conv(x), 2)))
            x = F.relu(layer.residual.bn(layer.residual.conv(x)) + x)
        return self.fc(F.max_pool2d(x, x.shape[-1]).flatten(1)) / 9


def preact(layers, channels, stem=None, **more):
    """timm's pre-activation network with batch norm; stem replaces its 7×7."""
    model = ResNetV2(layers=layers, channels=channels, conv_layer=create_conv2d, norm_layer=BatchNormAct2d, **more)
    if stem is not None:
        model.stem = nn.Sequential()
        model.stem.add_module("conv", stem)
    return model


def our_name(k):
    """A name of timm's resnetv2 as this module writes it."""
    k = k.replace("stem.conv.", "conv1.").replace("head.fc.", "fc.").replace(".downsample.conv.", ".downsample.0.")
    k = re.sub(r"^stages\.(\d+)\.blocks\.", lambda m: f"layer{int(m[1]) + 1}.", k)
    return re.sub(r"\.norm(\d)\.", r".bn\1.", k)


SMALL = {"block": "basic", "stem": "small", "shortcut": "projection"}
NETWORKS = {  # file → model, network, images, first batch (chosen by margins.py), height and width
    "resnetd": (
        lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, stem_width=8, stem_type="deep", avg_down=True,
                       channels=(16, 32, 64, 128), block_args={"attn_layer": "se"}),
        {"block": "bottleneck", "stem": "deep", "shortcut": "projection", "blocks": [1, 1, 1, 1], "filters": 16, "classes": 10,
         "avg_down": True, "se": True},
        4, 26, 70,  # 35, 18, 9, 5, 3: sides that averaging rounds up
    ),
    "preact": (
        lambda: preact([1, 2, 1], (64, 128, 256), stem_chs=16, num_classes=10),
        {"block": "bottleneck", "stem": "large", "shortcut": "projection", "blocks": [1, 2, 1], "filters": 16, "classes": 10, "preact": True},
        4, 31, 64,
    ),
    "wrn": (
        lambda: WRN(16, 1),
        {**SMALL, "blocks": [2, 2, 2], "filters": 16, "stem_filters": 16, "classes": 10, "preact": True},
        4, 43, 16,
    ),
    "resnet9": (
        lambda: ResNet9(16),
        {**SMALL, "block": "pooled", "blocks": [1, 0, 1], "filters": 16, "classes": 10},
        4, 124, 32,
    ),
    "resnet8w": (
        lambda: ResNet8W(8),
        {**SMALL, "block": "single", "stem": "whiten", "whiten": 2, "whiten_pad": True, "blocks": [1, 1, 1], "filters": 8, "widen": [1, 4, 4], "classes": 10,
         "fixed_gamma": True, "norm_rate": 0.4, "logit_scale": 1 / 9},
        4, 144, 32,
    ),
}


def once(name):
    """Logits in both modes, loss, every gradient after one training forward."""
    make, network, n, first, size = NETWORKS[name]
    model = make().double()
    with torch.no_grad():
        for k, v in model.state_dict().items():
            if not k.endswith("num_batches_tracked"):
                v.copy_(torch.from_numpy(formula.weight(our_name(k), tuple(v.shape))))
    x, y = torch_resnet.batch(first, n, size, network["classes"])
    with torch.no_grad():
        inference = model.eval()(x)
    logits = model.train()(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    gradients = {our_name(k): p.grad.numpy() for k, p in model.named_parameters() if p.requires_grad}
    formula.write(
        f"torch_{name}",
        {
            **torch_resnet.describe(network, n, first, size),
            "values": {
                "losses": [loss.item()],
                "logits/inference": formula.numbers(inference.detach().numpy()),
                "logits/training": formula.numbers(logits.detach().numpy()),
            },
            "digests": {"gradients": formula.digests(gradients)},
        },
        MODULES,
        "logits [N,classes] of step 0's batch; losses[0]: mean cross-entropy in training mode; its gradients",
    )


def counts(model, size):
    """Trainable parameters, and multiply-accumulates of convolutions and dense layers."""
    macs = 0

    def count(m, _, y):
        nonlocal macs
        macs += y.numel() * m.weight[0].numel()

    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return {"size": size, "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad), "macs": macs}


def count_all():
    large = lambda name: lambda: timm.create_model(name)
    vision = lambda name: lambda: getattr(torchvision.models, name)()
    table = {
        **{n: (vision(n), 224, 1000) for n in ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]},
        **{n: (large(n), 224, 1000) for n in ["resnet18d", "resnet50d", "seresnet18", "seresnet50"]},
        **{f"preactresnet{d}": (large(f"resnetv2_{d}"), 224, 1000) for d in [18, 34, 50]},
        **{f"resnet{d}": (lambda n=(d - 2) // 6: torch_resnet.ResNet20(n), 32, 10) for d in [20, 32, 44, 56, 110]},
        "wrn-16-4": (lambda: WRN(16, 4), 32, 10),
        "wrn-28-10": (lambda: WRN(28, 10), 32, 10),
        "resnet9": (ResNet9, 32, 10),
        "resnet8w": (ResNet8W, 32, 10),
        "preactresnet164": (
            lambda: preact([18, 18, 18], (64, 128, 256), stem_chs=16, num_classes=10, stem=nn.Conv2d(3, 16, 3, 1, 1, bias=False)), 32, 10),
    }
    formula.write(
        "torch_counts",
        {"counts": {name: {"classes": classes, **counts(make(), size)} for name, (make, size, classes) in table.items()}},
        MODULES,
        "trainable parameters and multiply-accumulates per image of torchvision's resnet*, timm's resnet*d, seresnet* and "
        "resnetv2_* (here preactresnet*), and of the networks in torch_variants.py and torch_resnet.py",
    )


def main():
    torch.set_num_threads(1)
    for name in NETWORKS:
        once(name)
    count_all()


if __name__ == "__main__":
    main()
