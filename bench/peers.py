"""residual beside PyTorch and TensorFlow on this machine: medians and ratios as tables in Markdown.

    go build -o residual ./cmd/residual
    python bench/peers.py ./residual                         # everything: about 25 minutes on two quiet processors
    python bench/peers.py ./residual --rows 'train-32-*' --peers torch
    python bench/peers.py ./residual --rows '*infer*' --clock cpu --threads 1
    python bench/peers.py ./residual --rows 'train-*' --tune

Rows are named by what they measure: train-32-float32, infer-1-bfloat16 (the
tutorial network), resnet50-train-32-float32 (torchvision's, 224x224, 1000 classes),
avx2-train-32-float32 (all programs kept to AVX2). "Direct" is residual with
RESIDUAL_WINOGRAD=off: direct convolution, as the peers have it.

Peers run with the settings that bench/settings.json has for the row, or for "train"
or "infer"; of several, the best median counts and is named. --tune tries the other
settings one after the other, each against the best so far, and prints what won.
Settings are words joined by +:

    channels_last, contiguous    PyTorch's memory format
    compile                      torch.compile (needs g++); with freezing for inference
    jemalloc, tcmalloc           preloaded (apt-get install libjemalloc2 libtcmalloc-minimal4)
    iomp                         Intel's OpenMP preloaded (pip install intel-openmp), KMP_AFFINITY, KMP_BLOCKTIME=1
    bind                         OMP_PROC_BIND=close, OMP_PLACES=cores
    fit, train_on_batch, predict, function, frozen, xla    Keras (peer_keras.py)

Needs Python with torch, torchvision and tensorflow-cpu with keras 3; what is not
there is told and left out. Machines are shared and noisy: quote the ratios.
"""

import json
import os
import statistics
import sys

import alternate
from alternate import HERE, Missing, Once, Served
from settings import environment

TORCH_WORDS = {"channels_last", "contiguous", "compile"}
KERAS_WORDS = {"fit", "train_on_batch", "predict", "function", "frozen", "xla"}
LATENCY_RUNS = 100  # at batch 1, so that there is a p99


class Row:
    def __init__(self, mode, batch, dtype, model="tutorial", cap=""):
        self.mode, self.batch, self.dtype, self.model, self.cap = mode, batch, dtype, model, cap
        prefix = cap or ("" if model == "tutorial" else model)
        self.name = "-".join(([prefix] if prefix else []) + [mode, str(batch), dtype])

    def title(self):
        return f"{'training' if self.mode == 'train' else 'inference'}, batch {self.batch}, {self.dtype}"

    def runs(self, asked):
        if self.mode == "infer" and self.batch == 1:
            return LATENCY_RUNS
        if asked:
            return asked
        return 1 if self.model != "tutorial" else 2 if self.batch >= 128 else 4

    def ours(self, args, winograd):
        command = [args.residual, "bench", "resnet18" if self.model == "tutorial" else self.model, "--layers=false", "--format=json",
                   f"--runs={self.runs(args.runs)}", f"--threads={args.threads}", f"--batch-size={self.batch}",
                   f"--precision={self.dtype}", f"--only={self.mode}"]
        if self.model != "tutorial":
            command += ["--height=224", "--width=224", "--classes=1000", "--convention=torch"]
        env = {"RESIDUAL_WINOGRAD": winograd} if winograd else {}
        if self.cap:
            env["RESIDUAL_CPU"] = self.cap

        def read(out):
            report = json.loads(out)["precisions"][0]
            return {"engine": report["engine"], **(report["training"] if self.mode == "train" else report["inference"][0])}

        return Once(command, env, read)

    def peer(self, args, who, setting):
        words = setting.split("+")
        env = {"OMP_NUM_THREADS": str(args.threads), "TORCHINDUCTOR_CACHE_DIR": os.path.join(HERE, "results", "inductor")}
        if self.cap == "avx2":
            env |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
        command = [sys.executable, os.path.join(HERE, f"peer_{who}.py"), f"--mode={self.mode}", f"--batch={self.batch}",
                   f"--dtype={self.dtype}", f"--threads={args.threads}", f"--runs={self.runs(args.runs)}"]
        if who == "torch":
            command += [f"--model={self.model}"]
        preload = []
        for word in words:
            if who == "torch" and word in TORCH_WORDS:
                command += ["--compile"] if word == "compile" else [f"--format={word}"]
            elif who == "keras" and word in KERAS_WORDS:
                command += ["--xla"] if word == "xla" else [f"--method={word}"]
            else:
                more = environment(word)
                preload += [more.pop("LD_PRELOAD")] if "LD_PRELOAD" in more else []
                env |= more
        if preload:
            env["LD_PRELOAD"] = ":".join(preload)
        return Served(command, env)


def all_rows():
    for mode, batches in [("train", [32, 128]), ("infer", [1, 32, 256])]:
        for batch in batches:
            for dtype in ["float32", "bfloat16"]:
                yield Row(mode, batch, dtype)
    for mode, batch in [("train", 32), ("infer", 1), ("infer", 32)]:
        yield Row(mode, batch, "float32", cap="avx2")
    for mode in ["train", "infer"]:
        for dtype in ["float32", "bfloat16"]:
            yield Row(mode, 32, dtype, model="resnet50")


def settings(row, who):
    with open(os.path.join(HERE, "settings.json")) as f:
        chosen = json.load(f)[who]
    return chosen.get(row.name) or chosen[row.mode]


def contenders(row, args):
    found = {"residual": lambda: row.ours(args, "")}
    if row.dtype == "float32" and not row.cap and row.model == "tutorial":
        found["direct"] = lambda: row.ours(args, "off")
    for who in args.peers.split(","):
        if who and (who == "torch" or row.model == "tutorial" and not row.cap):
            for setting in settings(row, who):
                found[f"{who} {setting}"] = lambda who=who, setting=setting: row.peer(args, who, setting)
    return found


def speeds(reports, row, clock):
    """Images per second (or processor-second) of each contender in each round."""
    key = "step_cpu_seconds" if clock == "cpu" else "step_seconds"
    return {who: [row.batch / r[key] for r in rounds] for who, rounds in reports.items()}


def best(v, who):
    """The setting of a peer with the best median."""
    return max((k for k in v if k.split()[0] == who), key=lambda k: statistics.median(v[k]), default=None)


def ratio(v, ours, theirs):
    """Of medians."""
    return f"{statistics.median(v[ours]) / statistics.median(v[theirs]):.2f}" if ours in v and theirs in v else ""


def report(measured, args):
    unit = "processor-second" if args.clock == "cpu" else "second"
    print(f"\nImages per {unit}, {args.threads} threads, {alternate.machine()}: medians of {args.rounds} alternating rounds [range].")
    v = {row.name: speeds(reports, row, args.clock) for row, reports in measured}
    for title, keep in [("ResNet-18 at 32x32", lambda r: r.model == "tutorial" and not r.cap), ("ResNet-50 at 224x224", lambda r: r.model == "resnet50"),
                        ("ResNet-18 at 32x32, all kept to AVX2", lambda r: r.cap == "avx2")]:
        lines, direct = [], []
        for row, _ in measured:
            if not keep(row):
                continue
            s = v[row.name]
            torch, keras = best(s, "torch"), best(s, "keras")
            other = v.get(row.name.replace("bfloat16", "float32"), {}) if row.dtype == "bfloat16" else {}
            reference = best(other, "torch")
            lines.append([row.title(), *(alternate.spread(s[k]) if k in s else "" for k in ["residual", torch]), torch.split()[1] if torch else "",
                          f"**{ratio(s, 'residual', torch)}**" if torch and "residual" in s else "",
                          f"{statistics.median(s['residual']) / statistics.median(other[reference]):.2f}" if reference and "residual" in s else "",
                          *([alternate.spread(s[keras]), keras.split()[1], ratio(s, "residual", keras)] if keras else ["", "", ""])])
            if "direct" in s and torch:
                direct.append([row.title(), alternate.spread(s["direct"]), alternate.spread(s[torch]), ratio(s, "direct", torch), ratio(s, "residual", torch)])
        if lines:
            print(f"\n{title}:")
        head = ["", "residual", "PyTorch", "its setting", "ratio", "to PyTorch's float32", "TensorFlow", "its setting", "ratio"]
        empty = [i for i in range(1, len(head)) if all(not line[i] for line in lines)]  # columns that nothing is known of
        alternate.table([h for i, h in enumerate(head) if i not in empty], [[c for i, c in enumerate(line) if i not in empty] for line in lines])
        if direct:
            print("\nThe same with direct convolution:")
            alternate.table(["", "residual, direct", "PyTorch", "ratio", "ratio with Winograd"], direct)
    latency = []
    for row, reports in measured:
        s = v[row.name]
        for who in ["residual", best(s, "torch"), best(s, "keras")]:
            if row.mode == "infer" and row.batch == 1 and args.clock == "wall" and who in reports and all(r.get("step_seconds_p99") for r in reports[who]):
                latency.append([row.title() + (", AVX2" if row.cap else ""), who, *(alternate.spread([1000 * r[k] for r in reports[who]], 2)
                                                                                   for k in ["step_seconds", "step_seconds_p99"])])
    if latency:
        print(f"\nLatency of one picture in milliseconds, {LATENCY_RUNS} runs in each round:")
        alternate.table(["", "", "p50", "p99"], latency)
    return v


def tune(row, args, rows):
    """The best setting of PyTorch, dimension by dimension: the winner of one goes into the next."""
    base = "channels_last"
    # Threads' affinity shows in wall-clock time on several threads alone.
    dimensions = [["contiguous"], ["compile"], ["jemalloc", "tcmalloc"], ["iomp", "bind"] if args.threads > 1 else []]
    if args.no_compile:
        dimensions.remove(["compile"])
    for words in dimensions:
        tried = [base] + [w if w == "contiguous" else f"{base}+{w}" for w in words]
        reports = rows.row(f"tune-{row.name}-{'-'.join(words)}", {f"torch {s}": lambda s=s: row.peer(args, "torch", s) for s in tried}) if words else None
        if reports:
            v = speeds(reports, row, args.clock)
            won = best(v, "torch")
            print(f"{row.name}: " + ", ".join(f"{k.split()[1]} {alternate.spread(x)}" for k, x in v.items()), flush=True)
            # Half a percent decides nothing: the plainer setting stays.
            if statistics.median(v[won]) > 1.005 * statistics.median(v.get(f"torch {base}", [0])):
                base = won.split()[1]
    print(f'{row.name}: "{base}"', flush=True)


def main():
    p = alternate.parser(__doc__)
    p.add_argument("--runs", type=int, default=0, help=f"steps timed in each round (default: by row; batch 1 has {LATENCY_RUNS})")
    p.add_argument("--peers", default="torch,keras")
    p.add_argument("--tune", action="store_true", help="search PyTorch's best setting of each row in place of comparing")
    p.add_argument("--no-compile", action="store_true", help="with --tune: leave torch.compile out, which takes minutes")
    args = p.parse_args()
    rows = alternate.Rows(args, f"peers-{args.threads}")
    measured = []
    for row in all_rows():
        if args.tune:
            if rows.wanted(row.name):
                patterns, rows.args.rows = rows.args.rows, "*"
                tune(row, args, rows)
                rows.args.rows = patterns
            continue
        reports = rows.row(row.name, contenders(row, args))
        if reports:
            measured.append((row, reports))
    if measured:
        report(measured, args)


try:
    main()
except Missing as err:
    raise SystemExit(str(err))
