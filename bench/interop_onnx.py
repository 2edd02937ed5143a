"""ONNX files of other programs here, and ours there.

    python bench/interop_onnx.py RESIDUAL DIR [CHECKPOINT]

RESIDUAL is the program, DIR a folder for files. Exits with 1 where anything
disagrees.

There: networks that residual wrote are checked by onnx.checker, with and without
folding, softmax and preprocessing, and run by onnxruntime: a PyTorch checkpoint
(CHECKPOINT, such as resnet20-12fca82f.th), a network of the Keras convention, and
what the imports below export again. A picture must get the probabilities that
residual predict gives it. All test pictures of CIFAR-10: see interop.py.

Here: torchvision's resnet18 and resnet50 with random weights, exported by
PyTorch's two exporters over opsets 7 to 23, with batch normalisation kept or folded, and
the same simplified by onnxsim and optimised by onnxruntime, are imported; a
picture is classified by residual predict and by PyTorch. Tensors of files that
keep batch normalisation must come back to the bit.

timm's resnet-D, squeeze-excitation and pre-activation networks are imported too.

Needs torch, torchvision, onnx, onnxruntime, safetensors; onnxsim and timm where they are there.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
import torchvision
from PIL import Image

# Of probabilities. Float32 sums in other orders, folding included: seen 1.8e-6.
TOLERANCE = 1e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

program, where = sys.argv[1], pathlib.Path(sys.argv[2])
failures, worst = [], {}


def residual(*args):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"residual {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


def compare(what, kind, got, want):
    got, want = np.asarray(got, np.float64).ravel(), np.asarray(want, np.float64).ravel()
    off = np.abs(got - want).max() if got.shape == want.shape else np.inf
    worst[kind] = max(worst.get(kind, 0.0), off)
    ok = off <= TOLERANCE and got.argmax() == want.argmax()
    print(f"{'agrees ' if ok else 'DIFFERS'} {off:8.1e}  {what}")
    if not ok:
        failures.append(what)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def predicted(run, picture):
    told = json.loads(residual("predict", run, picture, "--topk", 1000, "--format", "json"))
    predictions = (told[0] if isinstance(told, list) else told)["predictions"]
    out = np.zeros(len(predictions))
    for p in predictions:
        out[p["index"]] = p["probability"]
    return out


def there(run, name):
    """A run's network as ONNX by every option, and a picture of its size."""
    for flags in ((), ("--fold-bn",), ("--softmax",), ("--include-preprocess",), ("--fold-bn", "--softmax", "--include-preprocess")):
        path = where / f"{name}{''.join(flags)}.onnx"
        residual("export", run, "-o", path, *flags)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        meta = {p.key: json.loads(p.value) for p in model.metadata_props if p.key in ("model", "preprocess")}
        side, pre = meta["model"]["height"], meta["preprocess"]
        picture = where / f"{side}.png"
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(picture)
        x = pixels[None]
        if "--include-preprocess" not in flags:
            x = (x.astype(np.float64) * pre["scale"] - pre.get("mean", 0)) / pre.get("std", 1)
            x = x.astype(np.float32).transpose(0, 3, 1, 2)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        y = session.run(["output"], {"input": np.repeat(x, 3, 0)})[0].astype(np.float64)
        for row in y:
            if np.abs(row - y[0]).max() > 1e-5 * np.abs(y).max():
                failures.append(f"{path.name}: three pictures at a time")
        compare(f"onnxruntime, {path.name}", "there", y[0] if "--softmax" in flags else softmax(y[0]), predicted(run, picture))


def here(net, path, picture, exact=None):
    """path, which computes what net does, imported and asked about picture."""
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    residual("import", path, "-o", folder, "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)))
    x = (np.asarray(Image.open(picture), np.float64) / 255 - MEAN) / STD
    with torch.inference_mode():
        z = net(torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32)))[0].numpy()
    compare(f"residual, {path.name}", "here", predicted(folder, picture), softmax(z.astype(np.float64)))
    if exact:
        back = where / "back.safetensors"
        residual("convert", folder, back)
        tensors = safetensors.torch.load_file(back)
        for k, v in net.state_dict().items():
            if not k.endswith("num_batches_tracked") and not torch.equal(v, tensors[k]):
                failures.append(f"{path.name}: {k} came back otherwise")
    return folder


def networks():
    for name in ("resnet18", "resnet50"):
        torch.manual_seed(1)
        net = getattr(torchvision.models, name)().eval()
        with torch.no_grad():
            for m in net.modules():
                if isinstance(m, torch.nn.BatchNorm2d):
                    m.running_mean.normal_(0, 0.1)
                    m.running_var.uniform_(0.8, 1.2)
                    m.weight.uniform_(0.8, 1.2)
                    m.bias.normal_(0, 0.1)
            net.fc.weight /= net(torch.rand(1, 3, 224, 224)).std()  # no class takes all
        yield name, net


def variants(picture):
    """timm's networks with other blocks, stems and shortcuts."""
    try:
        import timm
    except ImportError:
        print("timm is not there")
        return
    for name in ("resnet18d", "seresnet18", "resnetv2_18", "resnet50d", "seresnet50", "resnetv2_50"):
        torch.manual_seed(2)
        net = timm.create_model(name, pretrained=False).eval()
        with torch.no_grad():
            head = net.get_classifier()
            head.weight.normal_(0, 0.5)
            head.weight /= net(torch.rand(1, 3, 224, 224)).std()
        path = where / f"timm-{name}.onnx"
        # Of pre-activation the exporter folds what follows a convolution and leaves
        # what follows a sum; no configuration says so.
        kept = dict(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False) if name.startswith("resnetv2") else {}
        torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), path, opset_version=17, dynamo=False, **kept)
        here(net, path, picture)


def main():
    where.mkdir(parents=True, exist_ok=True)
    picture = where / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)).save(picture)
    x = torch.zeros(1, 3, 224, 224)
    if len(sys.argv) > 3:
        checkpoint = where / "checkpoint"
        shutil.rmtree(checkpoint, ignore_errors=True)
        residual("import", sys.argv[3], "-o", checkpoint)
        there(checkpoint, "checkpoint")
    keras = where / "keras"
    shutil.rmtree(keras, ignore_errors=True)
    residual("train", "--model", "resnet18", "--convention", "keras", "--limit-train", 64, "--limit-val", 16, "--epochs", 1, "--progress", "none", "-o", keras)
    there(keras, "keras")
    for name, net in networks():
        opsets = (7, 9, 11, 13, 18) if name == "resnet18" else (12, 17)
        for opset in opsets:
            for fold in (False, True):
                path = where / f"{name}-{opset}{'-folded' if fold else ''}.onnx"
                mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
                torch.onnx.export(
                    net, (x,), path, opset_version=opset, dynamo=False, training=mode, do_constant_folding=fold,
                    input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "n", 2: "h", 3: "w"}} if opset == 13 else None,
                )
                here(net, path, picture, exact=not fold)
        for opset in (18, 20, 23) if name == "resnet18" else (20,):
            path = where / f"{name}-{opset}-dynamo.onnx"
            torch.onnx.export(net, (x,), path, opset_version=opset, dynamo=True, external_data=opset == 18)
            folder = here(net, path, picture)
        there(folder, name)
        kept = where / f"{name}-{max(opsets)}.onnx"
        optimised = where / f"{name}-onnxruntime.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(str(kept), options, providers=["CPUExecutionProvider"])
        here(net, optimised, picture)
        try:
            import onnxsim
        except ImportError:
            print("onnxsim is not there")
            continue
        simplified, ok = onnxsim.simplify(onnx.load(kept))
        if not ok:
            failures.append("onnxsim")
        onnx.save(simplified, where / f"{name}-onnxsim.onnx")
        here(net, where / f"{name}-onnxsim.onnx", picture)
    variants(picture)
    for kind, off in worst.items():
        print(f"{kind}: probabilities differ by {off:.1e} at most")
    for f in failures:
        print("FAILED", f)
    sys.exit(1 if failures else 0)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    main()
