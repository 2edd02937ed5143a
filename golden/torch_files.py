"""Files of torch.save for the tests of format/torch: every layout and type that
is read, and what is refused.

    python golden/torch_files.py

writes format/torch/testdata/*.pth and expected.json, which has what torch.load
makes of each. Needs torch.
"""

import argparse
import collections
import json
import os
import pathlib
import sys

import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "format" / "torch" / "testdata"


def numbers(*shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    return ((torch.arange(n, dtype=torch.float64) - 3) / 8).reshape(shape).to(dtype)


def plain(dtype=torch.float32):
    return collections.OrderedDict(
        [
            ("conv1.weight", numbers(2, 3, 2, 2, dtype=dtype)),
            ("bn1.running_var", numbers(2, dtype=dtype)),
            ("bn1.num_batches_tracked", torch.tensor(300)),
            ("empty", torch.zeros(0, 4)),
        ]
    )


def strided():
    base = numbers(4, 6)
    return {
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "column": base[:, 5],
        "permuted": numbers(2, 3, 4).permute(2, 0, 1),
        "whole": base,
        "channels_last": numbers(2, 3, 2, 2).to(memory_format=torch.channels_last),
    }


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x)


class Evil:
    def __reduce__(self):
        return os.system, ("touch residual-was-here",)


def integers():
    return {
        "int64": torch.tensor([-(2**62), 5]),
        "int32": torch.tensor([-7, 2**31 - 1], dtype=torch.int32),
        "int16": torch.tensor([-7, 300], dtype=torch.int16),
        "int8": torch.tensor([-7, 100], dtype=torch.int8),
        "uint8": torch.tensor([7, 200], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }


def training():
    net = Net()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(numbers(*p.shape))
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    return {
        "epoch": 7,
        "best_acc": 91.5,
        "arch": "net",
        "state_dict": collections.OrderedDict(("module." + k, v) for k, v in net.state_dict().items()),
        "optimizer": adam.state_dict(),
    }


class Block(torch.nn.Module):
    """Of the CIFAR ResNets with option A, as in the checkpoints of akamaster."""

    def __init__(self, inside, out, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(out)
        self.conv2 = torch.nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(out)
        self.stride, self.more = stride, out - inside

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        x = torch.nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return torch.relu(y + x)


class ResNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.layer1 = torch.nn.Sequential(Block(4, 4, 1))
        self.layer2 = torch.nn.Sequential(Block(4, 8, 2), Block(8, 8, 1))
        self.linear = torch.nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer2(self.layer1(x)).mean((2, 3)))


def resnet():
    """A trained-looking network in a checkpoint, and its logits for one picture:
    byte i of its 9x9x3 pixels is 7i modulo 256."""
    torch.manual_seed(0)
    net = ResNet()
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.weight.uniform_(0.5, 1.5)
                m.bias.uniform_(-0.5, 0.5)
                m.running_mean.uniform_(-0.5, 0.5)
                m.running_var.uniform_(0.5, 1.5)
                m.num_batches_tracked.fill_(4321)
    state = {"state_dict": torch.nn.DataParallel(net).state_dict(), "best_prec1": 91.73}
    state["state_dict"] = collections.OrderedDict(("module." + k.removeprefix("module."), v) for k, v in state["state_dict"].items())
    torch.save(state, OUT / "resnet.pth")
    pixels = (7 * torch.arange(9 * 9 * 3) % 256).double().reshape(9, 9, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = ((pixels / 255 - mean) / std).permute(2, 0, 1)[None]
    return net.eval().double()(x)[0].tolist()


def main():
    OUT.mkdir(exist_ok=True)
    read = {
        "plain": (plain(), {}),
        "protocol4": (plain(), {"pickle_protocol": 4}),
        "legacy": (plain(), {"_use_new_zipfile_serialization": False}),
        "half": (plain(torch.float16), {}),
        "bfloat16": (plain(torch.bfloat16), {}),
        "double": (plain(torch.float64), {}),
        "double_legacy": (plain(torch.float64), {"_use_new_zipfile_serialization": False}),
        "integers": (integers(), {}),
        "strided": (strided(), {}),
        "strided_legacy": (strided(), {"_use_new_zipfile_serialization": False}),
        "parameters": ({k: torch.nn.Parameter(v) for k, v in plain().items() if v.is_floating_point()}, {}),
        "checkpoint": (training(), {}),
        "nested": ({"net": {"model": plain()}, "acc": 1}, {}),
        "only_one": ({"my_weights": plain(), "step": 3, "names": ["a", ("b", None)]}, {}),
    }
    expected = {"torch": torch.__version__, "resnet_logits": resnet(), "files": {}}
    for name, (what, options) in read.items():
        path = OUT / (name + ".pth")
        torch.save(what, path, **options)
        back = torch.load(path, weights_only="pickle_protocol" not in options)
        for key in ("state_dict", "net", "model", "my_weights"):
            if key in back:
                back = back[key]
        expected["files"][name] = [
            {
                "name": k,
                "dtype": str(v.dtype).removeprefix("torch."),
                "shape": list(v.shape),
                "values": [str(int(x)) if not v.is_floating_point() else repr(float(x)) for x in v.detach().reshape(-1)],
            }
            for k, v in back.items()
        ]
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")

    torch.save(Net(), OUT / "refused_module.pth")
    torch.save({"state_dict": plain(), "args": argparse.Namespace(lr=0.1)}, OUT / "refused_namespace.pth")
    torch.save({"state_dict": plain(), "hook": Evil()}, OUT / "refused_executable.pth")
    torch.save({"state_dict": plain(), "hook": Evil()}, OUT / "refused_executable_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "lr": [0.1]}, OUT / "refused_no_tensors.pth")
    torch.save(numbers(2), OUT / "refused_tensor.pth")
    torch.jit.save(torch.jit.script(Net()), str(OUT / "refused_script.pth"))
    print(f"{len(read)} files to read, {len(list(OUT.glob('refused_*')))} to refuse in {OUT}, torch {torch.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
