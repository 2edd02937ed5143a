"""A residual network, as residual exported it. Needs torch and nothing else:

    from model import load
    net = load("WEIGHTS")          # .pth or .safetensors (needs safetensors)
    logits = net(images)           # images [N,C,H,W], preprocessed

CONFIG has the network. It is no model of torchvision or timm unless it says so.
"""

import json

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = json.loads(r"""{}""")

KERAS = CONFIG["convention"] == "keras"
EPSILON, MOMENTUM = (1e-3, 0.01) if KERAS else (1e-5, 0.1)
EPSILON = CONFIG.get("epsilon") or EPSILON


def same(size, kernel, stride):
    """TensorFlow's rule for padding='same': the odd row comes last."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad(x, kernel, stride, value=0.0):
    if KERAS:
        top, bottom = same(x.shape[2], kernel, stride)
        left, right = same(x.shape[3], kernel, stride)
    else:
        top = bottom = left = right = (kernel - 1) // 2
    return F.pad(x, (left, right, top, bottom), value=value)


class Conv(nn.Conv2d):
    def __init__(self, channels, width, kernel, stride=1):
        super().__init__(channels, width, kernel, stride, bias=CONFIG.get("conv_bias", False))

    def forward(self, x):
        return super().forward(pad(x, self.kernel_size[0], self.stride[0]))


def norm(width):
    if CONFIG.get("norm") == "none":  # folded into the convolutions
        return nn.Identity()
    return nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM)


class PadShortcut(nn.Module):
    """Option A: subsample, and pad with zero channels half before and half after."""

    def __init__(self, more, stride):
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x):
        before = self.more // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.more - before))


def shortcut(channels, width, stride):
    if stride == 1 and channels == width:
        return None
    if CONFIG["shortcut"] == "pad":
        return PadShortcut(width - channels, stride)
    return nn.Sequential(Conv(channels, width, 1, stride), norm(width))


class Basic(nn.Module):
    expansion = 1

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = Conv(channels, width, 3, stride), norm(width)
        self.conv2, self.bn2 = Conv(width, width, 3), norm(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels, width, stride):
        super().__init__()
        first, second = (stride, 1) if CONFIG.get("stride_first", False) else (1, stride)
        self.conv1, self.bn1 = Conv(channels, width, 1, first), norm(width)
        self.conv2, self.bn2 = Conv(width, width, 3, second), norm(width)
        self.conv3, self.bn3 = Conv(width, 4 * width, 1), norm(4 * width)
        self.downsample = shortcut(channels, 4 * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.large = CONFIG["stem"] == "large"
        kernel, stride = (7, 2) if self.large else (3, 1)
        block = Bottleneck if CONFIG["block"] == "bottleneck" else Basic
        channels = width = CONFIG["filters"]
        self.conv1, self.bn1 = Conv(CONFIG["channels"], width, kernel, stride), norm(width)
        self.stages = []
        for i, blocks in enumerate(CONFIG["blocks"]):
            layer = []
            for k in range(blocks):
                layer.append(block(channels, width, 2 if i > 0 and k == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
            self.stages.append(f"layer{i + 1}")
            width *= 2
        self.fc = nn.Linear(channels, CONFIG["classes"])

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.large:
            x = F.max_pool2d(pad(x, 3, 2, float("-inf")), 3, 2)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))


def load(path):
    """The network with the weights of a .pth or .safetensors file, for predictions."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = torch.load(path, weights_only=True)
    net = ResNet()
    net.load_state_dict(weights)  # strictly
    return net.eval()
