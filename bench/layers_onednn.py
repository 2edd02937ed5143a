"""Every convolution of the tutorial network, residual beside oneDNN: GFLOP/s as a table in Markdown.

    go build -o residual ./cmd/residual
    python bench/layers_onednn.py ./residual                 # rows layers-32-float32, -32-bfloat16, -128-float32, -128-bfloat16
    python bench/layers_onednn.py ./residual --rows 'layers-128-*' --threads 1

GFLOP/s are nominal, as if padding were computed and the convolution direct, so
that they compare times. oneDNN's are its primitives alone, as it times itself
inside PyTorch; ours are whole passes, in bfloat16 with the conversion of float32
inputs and outputs, with Winograd and without ("direct"). The share of the peak is
of what is executed: taps in the padding are skipped.
"""

import json
import os
import statistics
import sys

import alternate
from alternate import HERE, Once

PASSES = {"forward": "forward_gflops", "data": "backward_data_gflops", "weights": "backward_weights_gflops"}


def key(layer):
    (_, size, _, c), (kernel, _, _, oc) = layer["input"], layer["kernel"]
    return f"{c},{oc},{size},{kernel},{layer['stride']}"


def nominal(shape, batch):
    c, oc, size, kernel, stride = map(int, shape.split(","))
    return 2e-9 * batch * (size // stride) ** 2 * c * oc * kernel**2


def executed(shape):
    """The share of nominal products whose pixel is inside of the picture ('same' padding)."""
    _, _, size, kernel, stride = map(int, shape.split(","))
    before = max(kernel - stride, 0) // 2
    inside = sum(0 <= o * stride + k - before < size for o in range(size // stride) for k in range(kernel))
    return (inside / (size // stride * kernel)) ** 2


def main():
    p = alternate.parser(__doc__)
    p.add_argument("--runs", type=int, default=3, help="of each pass in each round")
    args = p.parse_args()
    if args.clock == "cpu":
        sys.exit(print("layers: oneDNN tells wall-clock time alone, nothing is measured with --clock cpu", file=sys.stderr))
    rows = alternate.Rows(args, f"layers-{args.threads}")

    def ours(batch, dtype, winograd):
        def read(out):
            r = json.loads(out)["precisions"][0]
            return {"peak": r["peak_gflops"], "names": {key(layer): layer["layers"] for layer in r["layers"]},
                    "gflops": {f"{key(layer)} {k}": layer[field] for layer in r["layers"] for k, field in PASSES.items()}}

        return Once([args.residual, "bench", "resnet18", "--only=layers", "--format=json", f"--batch-size={batch}", f"--precision={dtype}",
                     f"--threads={args.threads}", f"--runs={args.runs}"], {"RESIDUAL_WINOGRAD": winograd}, read)

    def theirs(batch, dtype, shapes):
        def read(out):
            r = json.loads(out)
            return {"onednn": r["onednn"], "gflops": {k: nominal(k.split()[0], batch) / s for k, s in r["seconds"].items()}}

        return Once([sys.executable, os.path.join(HERE, "onednn_convs.py"), f"--batch={batch}", f"--dtype={dtype}", "--shapes=" + ":".join(shapes),
                     f"--threads={args.threads}", f"--runs={args.runs}"], None, read)

    shapes = ["3,64,32,3,1", "64,64,32,3,1", "64,128,32,3,2", "64,128,32,1,2", "128,128,16,3,1", "128,256,16,3,2", "128,256,16,1,2",
              "256,256,8,3,1", "256,512,8,3,2", "256,512,8,1,2", "512,512,4,3,1"]
    for batch in [32, 128]:
        for dtype in ["float32", "bfloat16"]:
            reports = rows.row(f"layers-{batch}-{dtype}", {"residual": lambda: ours(batch, dtype, "auto"), "direct": lambda: ours(batch, dtype, "off"),
                                                    "oneDNN": lambda: theirs(batch, dtype, shapes)})
            if reports and {"residual", "direct"} <= set(reports):
                report(batch, dtype, shapes, reports, args)


def report(batch, dtype, shapes, reports, args):
    names = reports["residual"][0]["names"]
    if set(names) != set(shapes):
        raise SystemExit(f"the network has other shapes than this script knows: {sorted(set(names) ^ set(shapes))}")
    peak = statistics.median(r["peak"] for who in ["residual", "direct"] for r in reports[who])

    def median(who, shape, k):
        return statistics.median(r["gflops"][f"{shape} {k}"] for r in reports[who])

    version = f"oneDNN {reports['oneDNN'][0]['onednn']}" if "oneDNN" in reports else "oneDNN not there"
    print(f"\nBatch {batch}, {dtype}, {args.threads} threads, {alternate.machine()}, {version}, peak {peak:.0f} GFLOP/s: nominal GFLOP/s, forward / by data / "
          f"weights, medians of {args.rounds} alternating rounds.")
    lines, total, direct = [], {}, 0
    flops = 0
    for shape in shapes:
        c, oc, size, kernel, stride = shape.split(",")
        line = [f"{c} → {oc}, {kernel}×{kernel}{', stride 2' if stride == '2' else ''}, {size}×{size}" + (f" ({len(names[shape])})" if len(names[shape]) > 1 else "")]
        for who in ["residual", "direct", "oneDNN"]:
            if who in reports:
                line.append(" / ".join(f"{median(who, shape, k):.0f}" for k in PASSES))
        line.append(" / ".join(f"{100 * executed(shape) * median('direct', shape, k) / peak:.0f}" for k in PASSES))
        if "oneDNN" in reports:
            line.append(" / ".join(f"{median('residual', shape, k) / median('oneDNN', shape, k):.2f}" for k in PASSES))
        lines.append(line)
        if c != "3":  # the stem
            for k in PASSES:
                work = len(names[shape]) * nominal(shape, batch)
                flops += work * executed(shape)
                direct += work / median("direct", shape, k)
                for who in reports:
                    total[who] = total.get(who, 0) + work / median(who, shape, k)
    head = ["layer"] + [{"residual": "residual", "direct": "direct", "oneDNN": "oneDNN"}[w] for w in ["residual", "direct", "oneDNN"] if w in reports]
    alternate.table(head + ["direct, % of the peak executed"] + (["residual to oneDNN"] if "oneDNN" in reports else []), lines)
    print(f"\nAll but the stem, in milliseconds of a step: " + ", ".join(f"{who} {1000 * s:.1f}" for who, s in total.items())
          + f"; direct executes {100 * flops / direct / peak:.0f} % of the peak.")


main()
