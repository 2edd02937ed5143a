"""Small HDF5 files of every kind that package internal/hdf5 reads or must refuse, written by h5py, and what is in them.

    python golden/hdf5_files.py        writes internal/hdf5/testdata/*.h5 and manifest.json

h5py 3.14 with HDF5 1.14.6 made the ones in the repository.
"""

import gzip
import json
import os

import h5py
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "internal", "hdf5", "testdata")


def sequence(n, dtype):
    """Numbers that no two byte orders or types share."""
    if np.dtype(dtype) == bool:
        return np.arange(n) % 3 == 1
    if np.dtype(dtype).kind == "f":
        return (np.arange(n) * 1.25 - 3).astype(dtype)
    if np.dtype(dtype).kind == "u":
        return (np.arange(n) * 37 % 251).astype(dtype)
    return (np.arange(n) * 37 - 100).astype(dtype)


def fill(f, chunked):
    """All types, layouts and filters."""
    for name in ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "<i2", ">i4", "<i8", "i1", "u1", "?"]:
        f["types/" + name.replace("<", "little_").replace(">", "big_").replace("?", "bool")] = sequence(
            6, name
        ).reshape(2, 3).astype(name)
    f["scalar"] = np.float32(7.5)
    f["empty"] = np.zeros((0, 3), np.float32)
    f["null"] = h5py.Empty("f4")
    f.create_dataset("never_written", (3,), "f4", fillvalue=2.5)
    x = sequence(5 * 7 * 3, "f4").reshape(5, 7, 3)
    for name, options in chunked.items():
        f.create_dataset("chunks/" + name, data=x, **options)
    d = f.create_dataset("chunks/some_written", (6, 4), "f4", chunks=(2, 2), fillvalue=-1)
    d[3:4, 1:3] = 9
    many = f.create_group("many")
    for i in range(19):  # more than one symbol table node, or more than the header holds
        many["name_%02d" % i] = np.int8(i)
    deep = f.create_group("a/b")
    deep["e"] = np.int64(5)

    f.attrs["variable"] = "Größe 残差"
    f.attrs["bytes"] = b"plain bytes"
    f.attrs["empty"] = ""
    f.attrs["variable_array"] = np.array(["one", "", "drei"], dtype=h5py.string_dtype())
    f.attrs["fixed_array"] = np.array([b"a", b"bcd", b"ef"])
    f.attrs["number"] = np.float32(1.5)
    for i in range(10):  # in the newest format these leave the header
        deep.attrs["attribute_%02d" % i] = "value %d" % i
    deep.attrs["long"] = "x" * 1500


def describe(f):
    """Everything in the file, for the reader to find."""
    out = {"datasets": {}, "attributes": {}, "groups": []}

    def visit(name, o):
        for k, v in o.attrs.items():
            at = "/" + name + "@" + k if name else "/@" + k
            if isinstance(v, bytes):
                v = v.decode()
            if isinstance(v, np.ndarray) and v.dtype.kind in "SO":
                v = [s.decode() if isinstance(s, bytes) else str(s) for s in v]
            if isinstance(v, (str, list)):
                out["attributes"][at] = [v] if isinstance(v, str) else v
        if isinstance(o, h5py.Group):
            out["groups"].append("/" + name)
        else:
            v = o[()]
            v = np.zeros(0, np.float32) if isinstance(v, h5py.Empty) else np.asarray(v)
            out["datasets"]["/" + name] = {
                "type": v.dtype.name,
                "shape": list(v.shape),
                "values": [float(x) for x in v.ravel()],
            }

    visit("", f)
    f.visititems(visit)
    return out


CHUNKED = {
    "plain": dict(chunks=(2, 3, 3)),
    "shuffle_deflate": dict(chunks=(2, 4, 2), compression="gzip", shuffle=True),
    "fletcher32": dict(chunks=(5, 7, 3), fletcher32=True),
    "all_filters": dict(chunks=(5, 4, 3), compression="gzip", shuffle=True, fletcher32=True),
    "whole_deflate": dict(chunks=(5, 7, 3), compression="gzip"),
}


def main():
    os.makedirs(OUT, exist_ok=True)
    manifest = {"files": {}, "refused": {}}
    path = lambda name: os.path.join(OUT, name)

    for name, libver in [("earliest", "earliest"), ("v108", ("v108", "v108")), ("latest", ("v110", "latest"))]:
        with h5py.File(path(name + ".h5"), "w", libver=libver) as f:
            fill(f, CHUNKED)
            if name == "latest":
                x = np.arange(6, dtype="f4").reshape(2, 3)
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.COMPACT)
                d = h5py.h5d.create(f.id, b"compact", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2, 3)), plist)
                d.write(h5py.h5s.ALL, h5py.h5s.ALL, x)
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_chunk((1, 2))
                plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                d = h5py.h5d.create(f.id, b"implicit", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2, 3)), plist)
                d.write(h5py.h5s.ALL, h5py.h5s.ALL, x)
        with h5py.File(path(name + ".h5"), "r") as f:
            manifest["files"][name + ".h5"] = describe(f)

    with h5py.File(path("tracked.h5"), "w") as f:  # dense links in creation order
        g = f.create_group("g", track_order=True)
        for i in range(70):  # two levels of the index
            g["z%03d" % (69 - i)] = np.int8(i)
    with h5py.File(path("tracked.h5"), "r") as f:
        manifest["files"]["tracked.h5"] = describe(f)

    # Three levels of the index and several rows of the heap; compressed, as it is large.
    with h5py.File(path("deep.h5"), "w", libver=("v108", "v108")) as f:
        g = f.create_group("g")
        for i in range(1500):
            g.create_group("group_with_a_long_name_%04d" % i)
    with h5py.File(path("deep.h5"), "r") as f:
        manifest["deep"] = len(f["g"])
    with open(path("deep.h5"), "rb") as f, gzip.GzipFile(path("deep.h5.gz"), "wb", compresslevel=9, mtime=0) as z:
        z.write(f.read())
    os.remove(path("deep.h5"))

    def refused(name, message, make, **options):
        with h5py.File(path(name + ".h5"), "w", **options) as f:
            make(f)
        manifest["refused"][name + ".h5"] = message

    def hard(f):
        f["a"] = np.float32(1)
        f["b"] = f["a"]

    def cycle(f):
        f.create_group("a/b")["root"] = f["/"]

    def soft(f):
        f["a"] = np.float32(1)
        f["b"] = h5py.SoftLink("/a")

    def external(f):
        f["b"] = h5py.ExternalLink("/etc/passwd", "/a")

    def storage(f):
        f.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])

    def virtual(f):
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
        f.create_virtual_dataset("x", layout)

    def named(f):
        f["t"] = np.dtype("f4")
        f.create_dataset("x", (4,), dtype=f["t"])

    refused("hard_link", "hard links are not read", hard)
    refused("cycle", "hard links are not read", cycle)
    refused("soft_link", "/b: a soft link", soft)
    refused("soft_link_latest", "/b: a soft link", soft, libver="latest")
    refused("external_link", "/b: a external link", external)
    refused("external_storage", "external storage is not read", storage)
    refused("virtual", "virtual data sets are not read", virtual)
    refused("named_type", "committed types", named)
    refused("lzf", "filter LZF is not read", lambda f: f.create_dataset("x", data=np.zeros(9), compression="lzf"))
    refused(
        "extensible",
        "extensible arrays and B-trees of version 2 are not read",
        lambda f: f.create_dataset("x", data=np.zeros((4, 4)), chunks=(2, 2), maxshape=(None, 4)),
        libver="latest",
    )
    with open(path("manifest.json"), "w") as f:
        json.dump(manifest, f, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for name in sorted(os.listdir(OUT)):
        if os.path.isfile(path(name)):
            print(name, os.path.getsize(path(name)))


if __name__ == "__main__":
    main()
