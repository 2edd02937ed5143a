"""What Pillow and torchvision make of a picture, for the augmentations.

    python golden/augment.py                   writes augment.json

The picture is floor(40 + 170·half("augment/picture", i)) with a brighter left half, 10
rows of 12 pixels in RGB; results are its bytes in base64.
"""

import base64
import math
import sys

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms import autoaugment, v2
from torchvision.transforms import functional as F

import formula

H, W = 10, 12
MODULES = (torch, torchvision, PIL)


def picture(h=H, w=W):
    x = np.floor(40 + 130 * formula.half("augment/picture", h * w * 3)).reshape(h, w, 3)
    x[:, : w // 2] += 60
    return Image.fromarray(x.astype(np.uint8))


def entry(op, values, image):
    return {"op": op, "values": values, "picture": base64.b64encode(np.asarray(image).tobytes()).decode()}


def operations():
    """Each operation of RandAugment and TrivialAugment, and the hue, on RGB and grey."""
    magnitudes = {
        "ShearX": [0.09, -0.3, 0.99], "ShearY": [0.09, -0.3, 0.99], "TranslateX": [3.0, -4.9], "TranslateY": [3.0, -4.9],
        "Rotate": [9.0, -30.0, 135.0, 90.0], "Brightness": [0.27, -0.9], "Color": [0.27, -0.9], "Contrast": [0.27, -0.9],
        "Sharpness": [0.27, -0.9, 0.9], "Posterize": [7, 2], "Solarize": [178.5], "AutoContrast": [0.0], "Equalize": [0.0],
    }
    out = []
    for op, values in magnitudes.items():
        for m in values:
            out.append(entry(op, [m], autoaugment._apply_op(picture(), op, m, F.InterpolationMode.NEAREST, None)))
    for m in (0.1, -0.37):
        out.append(entry("Hue", [m], F.adjust_hue(picture(), m)))
    for op in ("Contrast", "Sharpness", "Rotate"):
        out.append(entry("grey " + op, [0.5], autoaugment._apply_op(picture().convert("L"), op, 0.5, F.InterpolationMode.NEAREST, None)))
    # More pixels than 255·2, so that equalize does something.
    out.append(entry("large Equalize", [0.0], F.equalize(picture(20, 26)).crop((0, 0, 26, 4))))
    return out


def resizing():
    """[height, width of the picture, height, width of the target, …] with the bicubic kernel."""
    out = []
    bicubic = F.InterpolationMode.BICUBIC
    for h, w, oh, ow in [(20, 27, 8, 8), (27, 20, 8, 8), (9, 7, 12, 12), (20, 26, 8, 11)]:
        p = picture(h, w)
        out.append(entry("squash", [h, w, oh, ow], F.resize(p, [oh, ow], bicubic)))
        out.append(entry("letterbox", [h, w, oh, ow], ImageOps.pad(p, (ow, oh), Image.Resampling.BICUBIC, color=(0, 0, 0))))
    for h, w, size, pct in [(20, 27, 8, 0.875), (27, 20, 7, 0.7), (8, 8, 8, 0.8)]:
        scaled = F.resize(picture(h, w), math.floor(size / pct), bicubic)
        out.append(entry("crop-pct", [h, w, size, size, pct], F.center_crop(scaled, [size, size])))
    for top, left, h, w in [(2, 3, 11, 14), (0, 0, 5, 4)]:
        out.append(entry("resized crop", [20, 27, 8, 8, top, left, h, w], F.resized_crop(picture(20, 27), top, left, h, w, [8, 8], bicubic)))
    return out


def ranges():
    """Magnitudes by operation: RandAugment's for pictures of 32×32, TrivialAugment's."""
    rand = autoaugment.RandAugment()._augmentation_space(31, (32, 32))
    wide = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    return {
        f"{policy} {op}": [float(x) for x in (m if m.ndim else m.reshape(1))]
        for policy, space in (("rand", rand), ("wide", wide))
        for op, (m, _) in space.items()
    }


def mixing():
    """MixUp of four pictures of 1×2 grey pixels, and CutMix's boxes."""
    images = torch.from_numpy(formula.half("augment/mix", 8).reshape(4, 1, 1, 2))
    labels = torch.arange(4)
    out = {}
    for lam in (0.3, 0.9):
        t = v2.MixUp(num_classes=4)
        t._dist = torch.distributions.Beta(torch.tensor(1.0), torch.tensor(1.0))
        params = {"lam": lam, "labels": labels, "batch_size": 4}
        out[f"mixup {lam}"] = formula.numbers(t.transform(images, params)) + formula.numbers(t.transform(labels, params))
    boxes = []
    for lam, x, y, h, w in [(0.5, 3, 4, 10, 12), (0.1, 0, 9, 10, 12), (0.99, 5, 5, 10, 12), (0.0, 6, 5, 10, 12), (0.7, 31, 0, 32, 32)]:
        t = v2.CutMix(num_classes=4)
        t._dist = type("D", (), {"sample": lambda self, _, lam=lam: torch.tensor(lam, dtype=torch.float64)})()
        draws = iter([torch.tensor([x]), torch.tensor([y])])
        randint, torch.randint = torch.randint, lambda *a, **k: next(draws)
        params = t.make_params([torch.zeros(4, 3, h, w)])
        torch.randint = randint
        boxes += [lam, x, y, h, w, *params["box"], params["lam_adjusted"]]
    out["cutmix"] = boxes
    return out


def main():
    sys.argv = sys.argv[:1]
    formula.write(
        "augment",
        {"values": {**ranges(), **mixing()}, "pictures": operations() + resizing()},
        MODULES,
        "pictures by Pillow and torchvision, magnitudes of torchvision's policies, mixed batches; see augment.py",
    )


if __name__ == "__main__":
    main()
