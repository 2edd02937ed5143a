"""What other programs make of exported files: logits of all test pictures of
CIFAR-10.

    python bench/interop.py DIR DATA

reads every model in DIR that residual exported (NAME.pth with NAME_model.py,
NAME.onnx, NAME.keras, folders with config.json) and writes DIR/NAME.logits:
float32, a row for each picture of DATA/test_batch.bin. Then

    RESIDUAL_INTEROP=DIR RESIDUAL_DATA=… go test -run TestInterop -v ./format

compares them with ours. Also loads what claims to be torchvision's or timm's with
torchvision and timm, strictly. Needs torch, torchvision, timm, safetensors;
onnxruntime for .onnx, keras for .keras.
"""

import importlib.util
import json
import pathlib
import sys
import zipfile

import numpy as np
import torch


def pictures(data):
    raw = np.fromfile(pathlib.Path(data) / "test_batch.bin", np.uint8).reshape(-1, 3073)
    return raw[:, 1:].reshape(-1, 3, 32, 32)


def preprocessed(images, pre):
    x = images.astype(np.float64) * pre["scale"]
    if pre.get("mean"):
        x = x - np.array(pre["mean"]).reshape(1, -1, 1, 1)
    if pre.get("std"):
        x = x / np.array(pre["std"]).reshape(1, -1, 1, 1)
    return x.astype(np.float32)


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


def forward(net, x):
    out = []
    with torch.inference_mode():
        for i in range(0, len(x), 500):
            out.append(net(torch.from_numpy(x[i : i + 500])).numpy())
    return np.concatenate(out)


def main():
    where, data = pathlib.Path(sys.argv[1]), sys.argv[2]
    images = pictures(data)
    done = 0
    for path in sorted(where.iterdir()):
        if path.suffix == ".pth":
            with zipfile.ZipFile(path) as z:
                pre = json.loads(json.loads(z.read("archive/extra/residual.json"))["preprocess"])
            weights = torch.load(path, weights_only=True)
            source = path.with_name(path.stem + "_model.py")
            if source.exists():
                net = module(source).load(path)
            else:
                import torchvision

                arch = json.loads(zipfile.ZipFile(path).read("archive/extra/residual.json"))["architecture"]
                net = getattr(torchvision.models, arch)(num_classes=len(weights["fc.bias"]))
                net.load_state_dict(weights, strict=True)
                net.eval()
            logits = forward(net, preprocessed(images, pre))
        elif path.is_dir() and (path / "config.json").exists():
            import safetensors

            with safetensors.safe_open(path / "model.safetensors", "pt") as f:
                pre = json.loads(f.metadata()["preprocess"])
            config = json.loads((path / "config.json").read_text())
            if "architecture" in config:
                import timm

                net = timm.create_model(config["architecture"], num_classes=config["num_classes"], checkpoint_path=str(path / "model.safetensors")).eval()
            else:
                net = module(path / "model.py").load(path / "model.safetensors")
            logits = forward(net, preprocessed(images, pre))
        elif path.suffix == ".onnx":
            import onnx
            import onnxruntime

            onnx.checker.check_model(str(path), full_check=True)
            meta = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
            x = preprocessed(images, json.loads(meta["preprocess"]))
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            logits = np.concatenate([session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)])
        elif path.suffix == ".keras":
            import keras

            pre = json.loads(json.loads(zipfile.ZipFile(path).read("metadata.json"))["residual"]["preprocess"])
            net = keras.saving.load_model(path, compile=False, safe_mode=True)
            logits = net.predict(preprocessed(images, pre).transpose(0, 2, 3, 1), batch_size=500, verbose=0)
        else:
            continue
        logits.astype("<f4").tofile(where / (path.name + ".logits"))
        labels = np.fromfile(pathlib.Path(data) / "test_batch.bin", np.uint8).reshape(-1, 3073)[:, 0]
        print(f"{path.name}: {int((logits.argmax(1) == labels).sum())} of {len(labels)} right")
        done += 1
    if done == 0:
        sys.exit(f"{where} has no exported model")


if __name__ == "__main__":
    main()
