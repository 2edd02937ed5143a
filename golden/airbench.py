"""Golden files of what the CIFAR-10 speed records do besides gradients, in float64.

    python golden/airbench.py                  writes torch_lookahead.json and torch_whitening.json

torch_lookahead: updates of a small resnet8w (torch_variants.py) with Nesterov momentum, a
larger rate for batch normalisation's β with the same decay, and weights that return
to slow ones every second update and at the end of each epoch, after
KellerJordan/cifar10-airbench (airbench94.py: param_configs, LookaheadState).
torch_whitening: the kernel of a whitening convolution (init_whitening_conv there).
"""

import numpy as np
import torch
import torch.nn.functional as F

import formula
import torch_resnet as resnet
import torch_variants

MODULES = (torch,)
FIRST, N, SIZE = 77, 8, 16
EPOCHS, STEPS = 2, 3  # in an epoch
EVERY, KEEP, POWER, START = 2, 0.7, 3, 0.3
RATE, DECAY, SHIFT = 0.05, 2e-2, 8


def lookahead():
    network = torch_variants.NETWORKS["resnet8w"][1]
    model = torch_variants.NETWORKS["resnet8w"][0]().double().train()
    state = resnet.tensors(model)
    with torch.no_grad():
        for k, v in state.items():
            v.copy_(torch.from_numpy(formula.weight(k, tuple(v.shape))))
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    shifts = [p for k, p in trained.items() if ".bn." in k]
    others = [p for k, p in trained.items() if ".bn." not in k]
    update = torch.optim.SGD(
        [
            {"params": shifts, "lr": SHIFT * RATE, "weight_decay": DECAY / SHIFT},
            {"params": others, "lr": RATE, "weight_decay": DECAY},
        ],
        momentum=0.85,
        nesterov=True,
    )
    slow, losses, done, total = None, [], 0, EPOCHS * STEPS
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            x, y = resnet.batch(FIRST + done, N, SIZE, network["classes"])
            update.zero_grad()
            loss = F.cross_entropy(model(x), y, label_smoothing=0.2)
            loss.backward()
            update.step()
            losses.append(loss.item())
            before, done = done / total, done + 1
            with torch.no_grad():
                if before >= START and done % EVERY == 0:
                    if slow is None:
                        slow = {k: v.clone() for k, v in state.items()}
                    else:
                        for k, v in state.items():
                            slow[k].lerp_(v, 1 - KEEP * (done / total) ** POWER)
                            v.copy_(slow[k])
        if slow is not None:
            with torch.no_grad():
                for k, v in state.items():
                    v.copy_(slow[k])
    names = [k for k, v in state.items() if k in trained or "running" in k]
    formula.write(
        "torch_lookahead",
        {
            **resnet.describe(network, N, FIRST, SIZE),
            "optimizer": {"name": "sgd", "form": "torch", "learning_rate": RATE, "momentum": 0.85, "nesterov": True, "weight_decay": DECAY, "steps": total},
            "values": {
                "losses": losses,
                "lookahead": [EVERY, KEEP, POWER, START],
                "shift_rate": [SHIFT],
                "steps_per_epoch": [STEPS],
            },
            "digests": {
                "variables": formula.digests({k: state[k].numpy() for k in names}),
                "slow": formula.digests({k: slow[k].numpy() for k in names}),
            },
        },
        MODULES,
        "losses[k]: mean cross-entropy of update k, labels smoothed by 0.2; weights and slow weights after the last",
    )


def whitening():
    k, n, size = 2, 4, 12
    # Neighbours resemble each other, as in pictures, so that eigenvalues differ.
    x = torch.from_numpy(np.cumsum(np.cumsum(formula.images(3, n, size, size) - 0.5, 1), 2)).permute(0, 3, 1, 2)
    patches = x.unfold(2, k, 1).unfold(3, k, 1).transpose(1, 3).reshape(-1, 3 * k * k)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    values, vectors = values.flip(0), vectors.T.flip(0)
    sign = torch.gather(vectors, 1, vectors.abs().argmax(1, keepdim=True)).sign()  # eigh leaves it open
    scaled = (sign * vectors / torch.sqrt(values[:, None] + 5e-4)).reshape(-1, 3, k, k)
    kernel = torch.cat((scaled, -scaled))
    formula.write(
        "torch_whitening",
        {"values": {"eigenvalues": formula.numbers(values), "kernel": formula.numbers(kernel)}},
        MODULES,
        "kernel [24,3,2,2] from images/3 [4,12,12,3] less 0.5, summed up along height and width; largest component of each filter positive",
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    lookahead()
    whitening()
