"""Golden files of what happens around a gradient, from PyTorch, in float64.

    python golden/torch_loop.py                writes torch_loop_*.json and torch_schedules.json

Clipping, accumulation over batches of unequal size, weight decay of kernels
alone, learning rates by depth, a moving average of all weights, and a frozen
network with a new dense layer, each over three updates of resnet20; and the
learning rates of PyTorch's schedulers.
"""

import warnings

import torch
import torch.nn.functional as F

import formula
import torch_resnet as resnet

MODULES = (torch,)
FIRST, SIZE, UPDATES = 55, 16, 3
BATCHES = (8, 4)  # images in the batches of an update, where batches accumulate


def depth(name):
    """0 the stem, 1 to 3 the stages, 4 the dense layer."""
    layer = name.split(".")[0]
    return int(layer[5:]) if layer.startswith("layer") else 4 if layer == "fc" else 0


def keep(decay, n):
    """Of the average in update n, from 0: as torch.optim.swa_utils' AveragedModel
    copies first, then with TensorFlow's num_updates."""
    return 0.0 if n == 0 else min(decay, (1 + n) / (10 + n))


def run(case, note, optimizer, make, *, sizes=(8,), clip_norm=0.0, clip_value=0.0, ema=0.0, lr_mult=1.0, frozen=False, schedule=None):
    model, network = resnet.build("resnet20")
    model.train()
    if frozen:
        model.eval()
        for name, p in model.named_parameters():
            p.requires_grad_(name.startswith("fc."))
    groups = [
        {
            "params": [p],
            "lr": optimizer["learning_rate"] * lr_mult ** (depth(name) / 4 - 1),
            "weight_decay": optimizer["weight_decay"] if p.dim() > 1 else 0.0,
        }
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    update = make(groups)
    scheduler = schedule(update) if schedule else None
    average = {k: v.detach().clone() for k, v in resnet.tensors(model).items()}
    losses, norms, batch = [], [], 0
    for n in range(UPDATES):
        update.zero_grad()
        loss = 0.0
        for size in sizes:
            x, y = resnet.batch(FIRST + batch, size, SIZE, network["classes"])
            batch += 1
            part = F.cross_entropy(model(x), y) * size / sum(sizes)
            part.backward()
            loss += part.item()
        parameters = [p for p in model.parameters() if p.requires_grad]
        norms.append(torch.sqrt(sum((p.grad**2).sum() for p in parameters)).item())
        if clip_value:
            torch.nn.utils.clip_grad_value_(parameters, clip_value)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        update.step()
        if scheduler:
            scheduler.step()
        losses.append(loss)
        with torch.no_grad():
            for k, v in resnet.tensors(model).items():
                average[k].lerp_(v, 1 - keep(ema, n)) if n else average[k].copy_(v)
    formula.write(
        case,
        {
            **resnet.describe(network, max(sizes), FIRST, SIZE),
            "optimizer": {**optimizer, "form": "torch", "steps": UPDATES},
            "values": {"losses": losses, "norms": norms},
            "digests": {
                "variables": formula.digests(resnet.arrays(resnet.tensors(model))),
                **({"ema": formula.digests({k: v.numpy() for k, v in average.items() if not k.startswith("layer1")})} if ema else {}),
            },
        },
        MODULES,
        note,
    )


def rates(make, steps=20):
    """The factors that a scheduler gives to the steps of a run."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    update = torch.optim.SGD([p], lr=1.0)
    scheduler = make(update, steps)
    out = []
    for _ in range(steps):
        out.append(update.param_groups[0]["lr"])
        scheduler.step()
    return out


def schedules():
    s = torch.optim.lr_scheduler

    def warm(after):
        """Five steps of warm-up to the rate, from a tenth of it; its first step is
        already one fifth of the way."""
        return lambda o, n: s.SequentialLR(o, [s.LinearLR(o, 0.1 + 0.9 / 5, 1.0, 4), after(o, n - 5)], [5])

    cosine = lambda o, n: s.CosineAnnealingLR(o, n, eta_min=0.1)
    formula.write(
        "torch_schedules",
        {
            "values": {
                "cosine": rates(cosine),
                "cosine, warm-up": rates(warm(cosine)),
                "constant, warm-up": rates(warm(lambda o, n: s.ConstantLR(o, 1.0, 0))),
                "linear": rates(lambda o, n: s.LinearLR(o, 1.0, 0.1, n)),
                "multistep": rates(lambda o, n: s.MultiStepLR(o, [n // 2, 3 * n // 4], 0.1)),
                "onecycle": rates(lambda o, n: s.OneCycleLR(o, 1.0, n, pct_start=0.3, div_factor=25, final_div_factor=4, cycle_momentum=False)),
            }
        },
        MODULES,
        "the learning rate of each of 20 steps, as a factor; warm-ups of 5 steps, floors 0.1 (onecycle: 0.01)",
    )


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # SequentialLR calls step() before the optimizer
    sgd = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
    adamw = {"name": "adamw", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-5, "weight_decay": 0.05}
    run(
        "torch_loop_accumulate",
        "updates from batches of 8 and 4 images, gradients clipped to norm 1.5, weight decay of kernels alone, moving average 0.15",
        sgd,
        lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True),
        sizes=BATCHES,
        clip_norm=1.5,
        ema=0.15,
    )
    run(
        "torch_loop_depths",
        "gradients clipped to ±0.05 and then to norm 1.5, learning rates by depth from a hundredth, OneCycleLR",
        adamw,
        lambda g: torch.optim.AdamW(g, lr=1e-3, betas=(0.9, 0.99), eps=1e-5),
        clip_value=0.05,
        clip_norm=1.5,
        lr_mult=100.0,
        schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, [g["lr"] for g in o.param_groups], 10, pct_start=0.3, div_factor=25, final_div_factor=4, cycle_momentum=False
        ),
    )
    run(
        "torch_loop_frozen",
        "the dense layer alone, the rest in inference mode",
        sgd,
        lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True),
        frozen=True,
    )
    schedules()


if __name__ == "__main__":
    main()
