"""Golden class activation maps, from the package pytorch-grad-cam, in float64.

    python golden/torch_cam.py              writes torch_cam_resnet20.json and torch_cam_resnet18.json

The maps are the package's before it scales and resizes them for display.
"""

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import formula
import torch_resnet

MODULES = (torch, torch_resnet.torchvision)
METHODS = {"gradcam": GradCAM, "layercam": LayerCAM}


def cam(method, model, layer, x, classes):
    targets = [ClassifierOutputTarget(c) for c in classes]
    with METHODS[method](model=model, target_layers=[layer]) as explainer:
        explainer(input_tensor=x, targets=targets)  # fills activations and gradients
        seen = explainer.activations_and_grads
        activations, gradients = seen.activations[0].numpy(), seen.gradients[0].numpy()
        assert activations.dtype == np.float64
        return np.maximum(explainer.get_cam_image(x, layer, targets, activations, gradients, False), 0)


def once(name, n, size, classes):
    model, network = torch_resnet.build(name)
    model.eval()
    x, _ = torch_resnet.batch(0, n, size, network["classes"])
    values = {"classes": [float(c) for c in classes]}
    for stage in range(1, len(network["blocks"]) + 1):
        for method in METHODS:
            maps = cam(method, model, getattr(model, f"layer{stage}"), x, classes)
            if maps.max(axis=(1, 2)).min() > 0:  # a map of zeros checks little
                values[f"{method}/layer{stage}"] = formula.numbers(maps)
    last = f"layer{len(network['blocks'])}"
    assert all(f"{method}/{last}" in values for method in METHODS) and len(values) > 4, values.keys()
    formula.write(
        f"torch_cam_{name}",
        {**torch_resnet.describe(network, n, 0, size), "values": values},
        MODULES,
        f"maps [N,h,w] of the given classes, one for each picture of step 0's batch; pytorch-grad-cam {version()}",
    )


def version():
    import importlib.metadata

    return importlib.metadata.version("grad-cam")


if __name__ == "__main__":
    torch.set_num_threads(1)
    once("resnet20", 2, 16, [2, 7])
    once("resnet18", 2, 64, [11, 700])
