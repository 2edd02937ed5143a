"""ONNX files of other programs here, and ours there.

    python bench/interop_onnx.py RESIDUAL DIR [CHECKPOINT]

RESIDUAL is the program, DIR a folder for files. Exits with 1 where anything
disagrees.

There: networks that residual wrote are checked by onnx.checker, with and without
folding, softmax and preprocessing, and run by onnxruntime on the picture of the
golden vector that is of the network's size: a PyTorch checkpoint (CHECKPOINT,
such as resnet20-12fca82f.th), and what the imports below export again.

Here: torchvision's resnet18 and resnet50 with random weights, exported by
PyTorch's two exporters over opsets 7 to 23, with batch normalisation kept or folded, and
the same simplified by onnxsim and optimised by onnxruntime, are imported; a
picture is classified by residual predict and by PyTorch. Tensors of files that
keep batch normalisation must come back to the bit.

Needs torch, torchvision, onnx, onnxruntime, safetensors; onnxsim where it is there.
"""

import io
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

# Float32 sums in other orders, folding included: probabilities are compared, and
# logits as a share of the largest. Seen: see the end of a run.
TOLERANCE = 5e-5
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
    off = np.abs(got - want).max() / max(1.0, np.abs(want).max()) if got.shape == want.shape else np.inf
    worst[kind] = max(worst.get(kind, 0.0), off)
    ok = off <= TOLERANCE and got.argmax() == want.argmax()
    print(f"{'agrees ' if ok else 'DIFFERS'} {off:8.1e}  {what}")
    if not ok:
        failures.append(what)


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def there(source, name):
    """source (anything that residual converts) as ONNX by every option."""
    for flags in ((), ("--fold-bn",), ("--softmax",), ("--include-preprocess",), ("--fold-bn", "--softmax", "--include-preprocess")):
        path = where / f"{name}{''.join(flags)}.onnx"
        residual("convert", source, path, *flags)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        meta = {p.key: json.loads(p.value) for p in model.metadata_props if p.key in ("model", "preprocess", "golden")}
        run = session(path)
        side = meta["model"]["height"]
        for g in meta["golden"]:
            import base64

            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(g["picture"]))))
            if picture.shape != (side, side, 3):
                continue
            pre = meta["preprocess"]
            x = picture[None]
            if "--include-preprocess" not in flags:
                x = (x.astype(np.float64) * pre["scale"] - pre.get("mean", 0)) / pre.get("std", 1)
                x = x.astype(np.float32).transpose(0, 3, 1, 2)
            y = run.run(["output"], {"input": np.ascontiguousarray(x)})[0]
            want = np.array(g["logits"], np.float64)
            compare(f"onnxruntime, {path.name}", "there", y, softmax(want) if "--softmax" in flags else want)
            if run.run(["output"], {"input": np.repeat(x, 3, 0)})[0].shape != (3, len(want)):
                failures.append(f"{path.name}: three pictures at a time")


def here(net, path, picture, exact=None):
    """path, which computes what net does, imported and asked about picture."""
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    residual("import", path, "-o", folder, "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)))
    told = json.loads(residual("predict", folder, picture, "--topk", 1000, "--format", "json"))
    got = np.zeros(1000)
    for p in (told[0] if isinstance(told, list) else told)["predictions"]:
        got[p["index"]] = p["probability"]
    x = (np.asarray(Image.open(picture), np.float64) / 255 - MEAN) / STD
    with torch.inference_mode():
        z = net(torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32)))[0].numpy()
    compare(f"residual, {path.name}", "here", got, softmax(z.astype(np.float64)))
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
        yield name, net


def main():
    where.mkdir(parents=True, exist_ok=True)
    picture = where / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)).save(picture)
    x = torch.zeros(1, 3, 224, 224)
    if len(sys.argv) > 3:
        there(sys.argv[3], "checkpoint")
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
    for kind, off in worst.items():
        print(f"{kind}: {off:.1e} at most of the largest")
    for f in failures:
        print("FAILED", f)
    sys.exit(1 if failures else 0)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    main()
