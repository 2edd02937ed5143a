"""Golden files of whole networks, from PyTorch and torchvision, in float64.

    python golden/torch_resnet.py              writes every torch_resnet*.json

resnet18 and resnet50 are torchvision's; resnet20 is the CIFAR network with the
parameter-free shortcut (option A), written here with torchvision's names.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import formula

MODULES = (torch, torchvision)


class PadBlock(nn.Module):
    """Basic block whose shortcut takes every second pixel and adds zero channels,
    half of them before and half after."""

    def __init__(self, c, oc, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c, oc, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(oc)
        self.conv2 = nn.Conv2d(oc, oc, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(oc)
        self.stride, self.extra = stride, oc - c

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """6n + 2 layers; resnet20 itself has n = 3."""

    def __init__(self, n=3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        c = 16
        for s, oc in enumerate([16, 32, 64]):
            stage = []
            for b in range(n):
                stage.append(PadBlock(c, oc, 2 if s > 0 and b == 0 else 1))
                c = oc
            setattr(self, f"layer{s + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


NETWORKS = {
    "resnet18": (
        torchvision.models.resnet18,
        {"block": "basic", "stem": "large", "shortcut": "projection", "blocks": [2, 2, 2, 2], "filters": 64, "classes": 1000},
    ),
    "resnet50": (
        torchvision.models.resnet50,
        {"block": "bottleneck", "stem": "large", "shortcut": "projection", "blocks": [3, 4, 6, 3], "filters": 64, "classes": 1000},
    ),
    "resnet20": (
        ResNet20,
        {"block": "basic", "stem": "small", "shortcut": "pad", "blocks": [3, 3, 3], "filters": 16, "classes": 10},
    ),
}


def tensors(model):
    """Parameters and running statistics by name, in the model's order."""
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def build(name):
    make, network = NETWORKS[name]
    model = make().double()
    with torch.no_grad():
        for k, v in tensors(model).items():
            v.copy_(torch.from_numpy(formula.weight(k, tuple(v.shape))))
    return model, network


def batch(step, n, size, classes):
    x = torch.from_numpy(formula.images(step, n, size, size)).permute(0, 3, 1, 2).contiguous()
    return x, torch.from_numpy(formula.labels(step, n, classes))


def describe(network, n, first, size):
    return {"network": {"convention": "torch", **network, "batch": n, "first_batch": first, "height": size, "width": size, "l2": 0.0}}


def arrays(t):
    return {k: v.detach().numpy() for k, v in t.items()}


def once(name, n, first, size):
    """Logits in both modes, loss, every gradient, statistics after one training forward."""
    model, network = build(name)
    x, y = batch(first, n, size, network["classes"])
    with torch.no_grad():
        inference = model.eval()(x)
    logits = model.train()(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    logits = {"logits/inference": inference.detach().numpy(), "logits/training": logits.detach().numpy()}
    gradients = {k: p.grad.numpy() for k, p in model.named_parameters()}
    statistics = {k: v for k, v in arrays(tensors(model)).items() if "running" in k}
    small = network["classes"] <= 10
    content = {
        **describe(network, n, first, size),
        "values": {"losses": [loss.item()], **({k: formula.numbers(v) for k, v in logits.items()} if small else {})},
        "digests": {**({} if small else {"logits": formula.digests(logits)}), "gradients": formula.digests(gradients)},
    }
    formula.write(
        f"torch_{name}",
        content,
        MODULES,
        "logits [N,classes] of step 0's batch; losses[0]: mean cross-entropy in training mode; its gradients",
    )
    formula.write(
        f"torch_{name}.statistics",
        {**describe(network, n, first, size), "digests": {"variables": formula.digests(statistics)}},
        MODULES,
        "running statistics after one forward pass in training mode",
    )


def steps(case, n, first, size, optimizer, make):
    """Three steps of an optimizer on resnet20; weight decay on every parameter."""
    model, network = build("resnet20")
    update = make(model.parameters())
    losses = []
    model.train()
    for step in range(3):
        x, y = batch(first + step, n, size, network["classes"])
        update.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        update.step()
        losses.append(loss.item())
    formula.write(
        case,
        {
            **describe(network, n, first, size),
            "optimizer": {**optimizer, "form": "torch", "steps": len(losses)},
            "values": {"losses": losses},
            "digests": {"variables": formula.digests(arrays(tensors(model)))},
        },
        MODULES,
        "losses[k]: mean cross-entropy of step k, before its update; parameters and running statistics after the last",
    )


def main():
    torch.set_num_threads(1)  # sums in one order
    # Images, first batch (chosen by margins.py), height and width.
    once("resnet18", 2, 108, 64)
    once("resnet50", 2, 2, 64)  # no batch is far enough from a flip: its float32 logits err by 1e-4
    once("resnet20", 4, 39, 32)
    for case, nesterov in [("torch_resnet20_sgd", False), ("torch_resnet20_nesterov", True)]:
        steps(
            case,
            8,
            55,
            16,
            {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 1e-4},
            lambda p, nesterov=nesterov: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=1e-4),
        )
    steps(
        "torch_resnet20_adamw",
        8,
        55,
        16,
        {"name": "adamw", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.05},
        lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    )


if __name__ == "__main__":
    main()
