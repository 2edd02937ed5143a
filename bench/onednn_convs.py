"""One measurement of oneDNN's convolutions, as JSON: milliseconds of each shape and pass.

    python bench/onednn_convs.py --batch 32 --dtype float32 --shapes 64,64,32,3,1:64,128,32,3,2

Shapes are input channels, output channels, height and width, kernel, stride. PyTorch
calls oneDNN, which says how long each primitive took (ONEDNN_VERBOSE=profile_exec,
oneDNN 3's name): the convolution alone, without conversion of layouts around it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

CHILD = "--child"
LINE = re.compile(r"^onednn_verbose,(?:v1,)?(?:primitive,)?exec,cpu,convolution,([^,]*),(forward\w*|backward_data|backward_weights),.*?"
                  r"mb(\d+)_(?:g1)?ic(\d+)oc(\d+)_ih(\d+)oh(\d+)kh(\d+)sh(\d+).*,([\d.]+)$")


def child(a):
    import torch

    torch.set_num_threads(a.threads)
    dtype = getattr(torch, a.dtype)
    with torch.no_grad():
        for c, oc, size, kernel, stride in shapes(a.shapes):
            pad = kernel // 2
            x, w = torch.rand(a.batch, c, size, size, dtype=dtype), torch.rand(oc, c, kernel, kernel, dtype=dtype)
            x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
            dy = torch.rand_like(torch.conv2d(x, w, None, stride, pad))
            for _ in range(a.runs + 1):
                torch.conv2d(x, w, None, stride, pad)
                torch.ops.aten.convolution_backward(dy, x, w, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, [True, True, False])


def shapes(text):
    return [tuple(map(int, s.split(","))) for s in text.split(":")]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    p.add_argument("--shapes", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument(CHILD, action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        child(a)
        return
    done = subprocess.run([sys.executable, *sys.argv, CHILD], capture_output=True, text=True,
                          env={**os.environ, "ONEDNN_VERBOSE": "profile_exec", "OMP_NUM_THREADS": str(a.threads)})
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    version = re.search(r"info,oneDNN (v\S+)", done.stdout)
    seconds, kernels = {}, {}
    for line in done.stdout.splitlines():
        if found := LINE.match(line):
            kernel, kind, mb, ic, oc, ih, _, kh, sh, ms = found.groups()
            if int(mb) == a.batch:
                key = f"{ic},{oc},{ih},{kh},{sh} {kind.split('_', 1)[1] if kind.startswith('back') else 'forward'}"
                seconds.setdefault(key, []).append(float(ms) / 1000)
                kernels[key] = kernel
    missing = [s for s in shapes(a.shapes) for k in ("forward", "data", "weights") if ",".join(map(str, s)) + " " + k not in seconds]
    if missing:
        raise SystemExit(f"oneDNN told nothing of {missing}; first lines:\n" + "\n".join(done.stdout.splitlines()[:12]))
    # The first of each shape does not count.
    print(json.dumps({"onednn": version.group(1) if version else "", "seconds": {k: statistics.median(v[1:] or v) for k, v in seconds.items()}, "kernels": kernels}))


main()
