"""ONNX files as other programs write them, for the tests of format/onnx.

    python golden/onnx_files.py      writes format/onnx/testdata/*.onnx and expected.json

Small residual networks by PyTorch's two exporters over opsets 7 to 20, and by
Keras through tf2onnx where it is installed, with the logits that onnxruntime
computes for the pictures of formula.images. Weights and batch statistics are
those of formula.weight.
"""

import json
import os
import sys
import warnings

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

import formula

OUT = os.path.join(formula.HERE, "..", "format", "onnx", "testdata")
LIMIT = 50_000
expected = {}


class Basic(nn.Module):
    expansion = 1

    def __init__(self, c, width, stride, pad_shortcut, bias, gate=False):
        super().__init__()
        self.conv1 = nn.Conv2d(c, width, 3, stride, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = Gate(width) if gate else nn.Identity()
        make_shortcut(self, c, width, stride, pad_shortcut, bias, gate)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.se(self.bn2(self.conv2(y))) + shortcut(self, x))


class Gate(nn.Module):
    """Squeeze-excitation as timm writes it, with 1×1 convolutions."""

    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(c, 8, 1), nn.Conv2d(8, c, 1)

    def forward(self, x):
        s = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * s.sigmoid()


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, c, width, stride, pad_shortcut, bias, gate=False):
        super().__init__()
        self.conv1 = nn.Conv2d(c, width, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(4 * width)
        make_shortcut(self, c, 4 * width, stride, pad_shortcut, bias)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(shortcut(self, x) + self.bn3(self.conv3(y)))


def make_shortcut(block, c, oc, stride, pad_shortcut, bias, average=False):
    """average is ResNet-D's projection, which does not stride."""
    block.stride, block.extra, block.downsample = stride, oc - c, None
    if not pad_shortcut and (stride > 1 or c != oc):
        projection = [nn.Conv2d(c, oc, 1, 1 if average else stride, bias=bias), nn.BatchNorm2d(oc)]
        if average:
            projection.insert(0, nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
        block.downsample = nn.Sequential(*projection)


def shortcut(block, x):
    if block.downsample is not None:
        return block.downsample(x)
    if block.extra:
        x = x[:, :, :: block.stride, :: block.stride]
        return F.pad(x, (0, 0, 0, 0, block.extra // 2, block.extra - block.extra // 2))
    return x


class Net(nn.Module):
    """A residual network with torchvision's names. head is how it averages and
    flattens, normalise whether it takes pictures in 0..1 and normalises itself."""

    def __init__(self, block, blocks, filters, large=False, pad_shortcut=False, bias=False, head="adaptive", normalise=False, softmax=False, gate=False):
        super().__init__()
        self.large, self.head, self.normalise, self.softmax = large, head, normalise, softmax
        self.conv1 = nn.Conv2d(3, filters, 7, 2, 3, bias=bias) if large else nn.Conv2d(3, filters, 3, 1, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(filters)
        c = filters
        self.stages = len(blocks)
        for s, count in enumerate(blocks):
            stage = []
            for b in range(count):
                stage.append(block(c, filters << s, 2 if s > 0 and b == 0 else 1, pad_shortcut, bias, gate))
                c = (filters << s) * block.expansion
            setattr(self, f"layer{s + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(c, 5)
        with torch.no_grad():
            for k, v in self.state_dict().items():
                if not k.endswith("num_batches_tracked"):
                    v.copy_(torch.from_numpy(formula.weight(k, tuple(v.shape))))
        self.eval()

    def forward(self, x):
        if self.normalise:
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            x = (x - mean[None, :, None, None]) / std[None, :, None, None]
        x = F.relu(self.bn1(self.conv1(x)))
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        for s in range(self.stages):
            x = getattr(self, f"layer{s + 1}")(x)
        if self.head == "adaptive":
            x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        elif self.head == "mean":
            x = x.mean((2, 3))
        else:  # the CIFAR repositories' way
            x = F.avg_pool2d(x, x.size(3))
            x = x.view(x.size(0), -1)
        x = self.fc(x)
        return F.softmax(x, 1) if self.softmax else x


def keep(name, size, exact, note, nhwc=False, dtype=np.float32, scale=1.0):
    """Runs the file, checks its size, and records what belongs to it. exact says
    that its tensors are those of formula.weight, rounded to float32."""
    path = os.path.join(OUT, name + ".onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    if os.path.getsize(path) >= LIMIT:
        sys.exit(f"{path} has {os.path.getsize(path)} bytes, the limit is {LIMIT}")
    x = formula.images(0, 1, size, size)
    feed = (x if nhwc else x.transpose(0, 3, 1, 2)) * scale
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(feed).astype(dtype)})
    expected[name] = {
        "note": note,
        "opset": max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        "operators": sorted({n.op_type for n in model.graph.node}),
        "size": size, "nhwc": nhwc, "scale": scale,
        "output": [float(v) for v in y.ravel()],
        "exact": exact,
    }
    print(name, expected[name]["opset"], expected[name]["operators"], os.path.getsize(path))


def by_torch(name, model, size, opset, dynamo=False, fold=False, dynamic=False, half=False, note=""):
    """fold lets the exporter take batch normalisation into convolutions."""
    x = torch.from_numpy(formula.images(0, 1, size, size)).permute(0, 3, 1, 2).contiguous().float()
    if half:
        model, x = model.half(), x.half()
    else:
        model = model.float()
    path = os.path.join(OUT, name + ".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
            torch.onnx.export(model, (x.repeat(2, 1, 1, 1) if dynamic else x,), path, opset_version=opset, dynamo=True, external_data=False, dynamic_shapes=shapes, optimize=fold)
        else:
            mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
            torch.onnx.export(
                model, (x,), path, opset_version=opset, dynamo=False, training=mode, do_constant_folding=fold,
                input_names=["input"], output_names=["output"],
                dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}} if dynamic else None,
            )
    tidy(path)
    keep(name, size, not fold and not half, note, dtype=np.float16 if half else np.float32)


def tidy(path):
    """Leaves out source positions and the like, which are most of a small file."""
    model = onnx.load(path)
    for n in model.graph.node:
        n.doc_string = ""
        del n.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for v in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        v.doc_string = ""
        del v.metadata_props[:]
    onnx.save(model, path)


def otherwise_stored(name, source, how):
    """The same network with its tensors stored in another of protobuf's ways."""
    model = onnx.load(os.path.join(OUT, source + ".onnx"))
    for t in model.graph.initializer:
        v = onnx.numpy_helper.to_array(t)
        if v.dtype != np.float32:
            continue
        t.ClearField("raw_data")
        if how == "float_data":
            t.float_data.extend(v.ravel().tolist())
    onnx.save(model, os.path.join(OUT, name + ".onnx"))
    keep(name, expected[source]["size"], True, f"{source} with {how}")


def by_keras():
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
        import tf2onnx  # noqa: F401
    except ImportError as e:
        print("no Keras file:", e)
        return
    from keras import layers

    def block(x, width, stride):
        shortcut = x
        if stride > 1:
            shortcut = layers.BatchNormalization()(layers.Conv2D(width, 1, stride, padding="same")(x))
        y = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(width, 3, stride, padding="same")(x)))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        return layers.Activation("relu")(layers.add([y, shortcut]))

    x = inputs = layers.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)))
    x = block(block(x, 4, 1), 8, 2)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(x))
    for w in model.weights:
        kind = {"gamma": ".weight", "beta": ".bias", "moving_mean": ".running_mean", "moving_variance": ".running_var", "kernel": ".weight", "bias": ".bias"}[w.name]
        shape = tuple(w.shape)
        order = shape if len(shape) == 1 else shape[::-1] if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])
        v = formula.weight(w.path.replace("/", ".") + kind, order)
        w.assign(v if len(shape) == 1 else v.T if len(shape) == 2 else v.transpose(2, 3, 1, 0))
    model(np.zeros((1, 16, 16, 3), np.float32))  # export wants a model that was called
    model.export(os.path.join(OUT, "keras.onnx"), format="onnx", verbose=False)
    tidy(os.path.join(OUT, "keras.onnx"))
    keep("keras", 16, False, "Keras: pictures [N,H,W,C] of 0..255, rescaling, biases, padding 'same', softmax", nhwc=True, scale=255.0)


def main():
    os.makedirs(OUT, exist_ok=True)
    by_torch("torch_opset7", Net(Basic, [1, 1, 1], 4), 16, 7, note="batch normalisation kept")
    by_torch("torch_opset9_folded", Net(Basic, [1, 2], 4, large=True), 32, 9, fold=True, note="batch normalisation folded by the exporter")
    by_torch("torch_opset10_pad", Net(Basic, [2, 1], 4, pad_shortcut=True, head="view"), 16, 10, dynamic=True, note="option A, shapes computed in the graph")
    by_torch("torch_opset11_pad", Net(Basic, [1, 1, 1], 3, pad_shortcut=True, head="mean"), 16, 11, note="option A, amounts of padding computed in the graph")
    by_torch("torch_opset13", Net(Bottleneck, [2, 1], 2, large=True, head="mean"), 64, 13, dynamic=True, note="bottleneck")
    by_torch("torch_opset17_normalise", Net(Bottleneck, [1, 1], 2, normalise=True, softmax=True), 16, 17, note="takes pictures in 0..1, ends in a softmax")
    by_torch("torch_opset16_half", Net(Basic, [1, 1], 4), 16, 16, half=True, note="half precision")
    by_torch("torch_opset17_gate", Net(Basic, [1, 1], 4, gate=True), 17, 17, note="squeeze-excitation, ResNet-D's shortcut, odd sizes")
    by_torch("torch_opset18_dynamo", Net(Basic, [1, 1], 4, large=True, bias=True), 32, 18, dynamo=True, dynamic=True, note="torch.export, biases beside batch normalisation")
    by_torch("torch_opset20_dynamo_pad", Net(Basic, [1, 1], 4, pad_shortcut=True, head="view"), 16, 20, dynamo=True, note="torch.export, option A")
    by_torch("torch_opset20_dynamo_folded", Net(Bottleneck, [1, 1], 2, head="mean"), 16, 20, dynamo=True, fold=True, note="torch.export, optimised by onnxscript")
    otherwise_stored("torch_opset7_float_data", "torch_opset7", "float_data")
    by_keras()
    versions = formula.versions(torch, onnx, onnxruntime)
    with open(os.path.join(OUT, "expected.json"), "w") as f:
        f.write(formula.dump({"command": "python golden/onnx_files.py", "versions": versions, "files": expected}) + "\n")


main()
