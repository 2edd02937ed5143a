"""Numbers that Python and Go compute alike, and the form results are kept in.

The Go side is golden.go; TestFormula compares the two through formula.json,
which running this file writes. README.md defines everything once more in words.
"""

import json
import os
import platform
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
PROJECTIONS = 4
SAMPLES = 4


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for b in name.encode("utf-8"):
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def bits(name, start, count):
    """The words of elements start … start+count-1: mix(fnv1a64(name) + (i+1)·GAMMA)."""
    i = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = np.uint64(fnv1a64(name)) + i * np.uint64(GAMMA)  # modulo 2⁶⁴
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def half(name, count):
    """(u+1)/2: the top 53 bits as a number of [0,1). No step rounds."""
    return (bits(name, 0, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def u(name, count):
    """u(name, 0 … count-1), uniform in [-1,1). No step rounds."""
    return (bits(name, 0, count) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def weight(name, shape):
    """The tensor with this torchvision name and shape; the rule follows from both."""
    count = int(np.prod(shape))
    x = u(name, count)
    if len(shape) > 1:  # kernel [OC,C,KH,KW] or dense [OC,C]: Glorot uniform
        field = int(np.prod(shape[2:]))
        fans = (shape[0] + shape[1]) * field
        x = np.sqrt(6.0 / fans) * x
    elif name.endswith((".weight", ".running_var")):
        x = 1.0 + 0.1 * x
    elif name.endswith((".bias", ".running_mean")):
        x = 0.1 * x
    else:
        raise ValueError(f"weight {name}: no rule for this name with shape {list(shape)}")
    return x.reshape(shape)


def images(batch, n, h, w, c=3):
    return half(f"images/{batch}", n * h * w * c).reshape(n, h, w, c)


def labels(batch, n, classes):
    return np.floor(classes * half(f"labels/{batch}", n)).astype(np.int64)


def positions(name, count):
    """Which elements a digest samples."""
    return [int(np.floor(count * half(f"at/{k}/{name}", 1)[0])) for k in range(SAMPLES)]


def digest(name, values):
    v = np.asarray(values, dtype=np.float64).ravel()
    return {
        "n": v.size,
        "norm": float(np.sqrt(np.sum(v * v))),
        "proj": [float(np.sum(u(f"proj/{k}/{name}", v.size) * v)) for k in range(PROJECTIONS)],
        "at": [float(v[p]) for p in positions(name, v.size)],
    }


def ties(name, count):
    """Whole numbers 0 … 3: many equal neighbours, to see which of them a maximum takes."""
    return np.floor(4 * half(name, count))


def results(tensors):
    """Outputs of one op: name → (values, shape). Up to 64 elements in full, more as a digest."""
    out = {}
    for name, (values, shape) in tensors.items():
        v = np.asarray(values, dtype=np.float64).ravel()
        kept = {"values": numbers(v)} if v.size <= 64 else {"digest": digest(name, v)}
        out[name] = {"shape": list(shape), **kept}
    return out


def digests(tensors):
    return {name: digest(name, values) for name, values in tensors.items()}


def numbers(values):
    return [float(x) for x in np.asarray(values, dtype=np.float64).ravel()]


def versions(*modules):
    v = {"python": platform.python_version(), "numpy": np.__version__}
    v.update({m.__name__: m.__version__ for m in modules})
    return v


def dump(value, indent=0):
    """JSON with objects unfolded to one line per entry and arrays and digests in one
    line. Floats are written with as many digits as give back the same float64."""
    pad = "  " * (indent + 1)
    if isinstance(value, dict) and "norm" not in value and indent < 3 and any(
        isinstance(x, (dict, list)) for x in value.values()
    ):
        rows = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {dump(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + "  " * indent + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(pad + dump(v, indent + 1) for v in value) + "\n" + "  " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write(case, content, modules, note):
    """Writes <case>.json beside this file."""
    script = os.path.basename(sys.argv[0])
    record = {
        "case": case,
        "note": note,
        "script": script,
        "command": " ".join(["python", f"golden/{script}", *sys.argv[1:2]]),
        "versions": versions(*modules),
        **content,
    }
    text = dump(record) + "\n"
    assert len(text) < 50_000, f"{case}: {len(text)} bytes, the limit is 50,000"
    with open(os.path.join(HERE, case + ".json"), "w", encoding="utf-8") as f:
        f.write(text)
    print(f"{case}.json: {len(text)} bytes")


def main():
    names = ["conv1.weight", "images/0", "proj/3/layer1.0.bn1.running_var", "残差"]
    shapes = {
        "conv1.weight": (4, 3, 3, 3),
        "bn1.weight": (5,),
        "bn1.bias": (5,),
        "bn1.running_mean": (5,),
        "bn1.running_var": (5,),
        "layer2.0.downsample.0.weight": (8, 4, 1, 1),
        "fc.weight": (10, 8),
        "fc.bias": (10,),
    }
    weights = {name: weight(name, shape) for name, shape in shapes.items()}
    write(
        "formula",
        {
            "hashes": {name: f"{fnv1a64(name):016x}" for name in names},
            "elements": {name: numbers(u(name, 4)) for name in names},
            "far_elements": {name: [1_000_000, float(u(name, 1_000_001)[-1])] for name in names},
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "values": {
                **{name: numbers(w)[:6] for name, w in weights.items()},
                "images/2": numbers(images(2, 2, 2, 2)),
                "labels/2": numbers(labels(2, 16, 10)),
            },
            "digests": {"weights": digests(weights)},
        },
        (),
        "the formula itself, for the test that Python and Go agree",
    )


if __name__ == "__main__":
    main()
