"""Peak memory (VmHWM) of training the tutorial network, residual beside PyTorch, as a table in Markdown.

    go build -o residual ./cmd/residual
    RESIDUAL_DATA=… python bench/memory.py ./residual

Ours is "residual train cifar10" with recipe tutorial, steps and a validation, less
the bytes of the data set's pictures, which it holds. PyTorch's is peer_torch.py,
which holds no data, in both memory formats and with jemalloc preloaded; the smallest
counts. "After import" is what Python with PyTorch takes before there is a network:
PyPI's build has libraries for GPUs in it.
"""

import os
import statistics
import sys
import tempfile

import alternate
from alternate import HERE, Once
from settings import environment

STEPS = 10
DATA_BYTES = 60000 * 3072  # of CIFAR-10


class Train:
    """residual train, with the kernel's account of its largest resident set."""

    def __init__(self, args, batch, dtype):
        self.args, self.batch, self.dtype = args, batch, dtype

    def measure(self):
        with tempfile.TemporaryDirectory() as out:
            command = [self.args.residual, "train", "cifar10", "--recipe=tutorial", "--epochs=1", f"--limit-train={STEPS * self.batch}",
                       f"--limit-val={4 * self.batch}", f"--batch-size={self.batch}", f"--precision={self.dtype}", f"--threads={self.args.threads}",
                       "--progress=none", f"--out={out}/run"]
            return {"peak_bytes": (alternate.account(command).ru_maxrss << 10) - DATA_BYTES}

    def close(self):
        pass


def main():
    p = alternate.parser(__doc__, rounds=3)
    args = p.parse_args()
    rows = alternate.Rows(args, f"memory-{args.threads}", timed=False)
    lines = []
    for batch in [32, 128]:
        for dtype in ["float32", "bfloat16"]:
            found = {"residual": lambda: Train(args, batch, dtype)}
            for setting in ["channels_last", "contiguous", "channels_last+jemalloc"]:
                memory, *more = setting.split("+")

                def theirs(memory=memory, more=more):
                    env = {"OMP_NUM_THREADS": str(args.threads)}
                    for word in more:
                        env |= environment(word)
                    env.pop("MALLOC_CONF", None)  # which keeps memory for speed
                    return Once([sys.executable, os.path.join(HERE, "peer_torch.py"), "--mode=train", f"--batch={batch}", f"--dtype={dtype}",
                                 f"--format={memory}", "--runs=1", f"--threads={args.threads}"], env)

                found[f"torch {setting}"] = theirs
            reports = rows.row(f"memory-{batch}-{dtype}", found)
            if reports and "residual" in reports:
                mib = {who: [r["peak_bytes"] / 1e6 for r in rounds] for who, rounds in reports.items()}
                least = min((w for w in mib if w != "residual"), key=lambda w: statistics.median(mib[w]), default=None)
                lines.append([f"batch {batch}, {dtype}", alternate.spread(mib["residual"], 0)] + (
                    [alternate.spread(mib[least], 0), least.split()[1], f"{statistics.median(r['start_bytes'] for r in reports[least]) / 1e6:.0f}",
                     f"{statistics.median(mib['residual']) / statistics.median(mib[least]):.2f}"] if least else [""] * 4))
    if lines:
        print(f"\nPeak memory of training ResNet-18 at 32x32, in MB (10^6 bytes), the data apart; {args.threads} threads, medians of {args.rounds} "
              "alternating rounds [range].")
        alternate.table(["", "residual", "PyTorch", "its setting", "of which after import", "ratio"], lines)


main()
