"""Small residual networks as Keras saves them, with what Keras predicts, for package format/keras.

    python golden/keras_files.py                      writes format/keras/testdata/*.gz and expected.json
    python golden/keras_files.py --large FILE OUT     networks of full size into the folder OUT: the tutorial's own class (FILE
                                                      defines ResNet18) and keras.applications.ResNet50; RESIDUAL_KERAS_FILES=OUT
                                                      go test -run TestLarge ./format/keras
    python golden/keras_files.py --check FILE...      loads .keras files that residual wrote, compares with their golden vectors

Keras 3.15.1 on TensorFlow 2.21 made the ones in the repository; those called keras2_* are by tf_keras 2.21.
Files are compressed, as HDF5 pads groups with kilobytes of zeros.
"""

import gzip
import io
import json
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tf_keras

import formula

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "format", "keras", "testdata")
CLASSES = 5


def block_class(k):
    class Block(k.Model):
        """A basic block of a subclassed model."""

        def __init__(self, filters, stride, project):
            super().__init__()
            conv = lambda size, stride: k.layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)
            self.c1, self.b1 = conv(3, stride), k.layers.BatchNormalization()
            self.c2, self.b2 = conv(3, 1), k.layers.BatchNormalization()
            self.project = project
            if project:
                self.down_c1, self.down_b1 = conv(1, stride), k.layers.BatchNormalization()
            self.relu = k.layers.Activation("relu")

        def call(self, x):
            y = self.b2(self.c2(self.relu(self.b1(self.c1(x)))))
            return self.relu(y + (self.down_b1(self.down_c1(x)) if self.project else x))

    return Block


def net_class(k):
    block = block_class(k)

    class Net(k.Model):
        """A subclassed residual network with the tutorial's structure."""

        def __init__(self, counts, filters):
            super().__init__()
            self.c1 = k.layers.Conv2D(filters, 3, padding="same", use_bias=False)
            self.b1 = k.layers.BatchNormalization()
            self.relu = k.layers.Activation("relu")
            self.blocks = k.Sequential()
            for stage, count in enumerate(counts):
                for i in range(count):
                    first = stage > 0 and i == 0
                    self.blocks.add(block(filters << stage, 2 if first else 1, first))
            self.pool = k.layers.GlobalAveragePooling2D()
            self.f1 = k.layers.Dense(CLASSES, activation="softmax")

        def call(self, x):
            return self.f1(self.pool(self.blocks(self.relu(self.b1(self.c1(x))))))

    return Net


class Odd(keras.Model):
    """Attribute names whose alphabetical order is not the order of the network."""

    def __init__(self):
        super().__init__()
        L = keras.layers
        self.zz, self.zz_norm = L.Conv2D(4, 3, padding="same"), L.BatchNormalization()
        self.second_first, self.y_norm = L.Conv2D(4, 3, padding="same"), L.BatchNormalization()
        self.a, self.x_norm = L.Conv2D(4, 3, padding="same"), L.BatchNormalization()
        self.head = L.Dense(CLASSES)

    def call(self, x):
        relu = keras.ops.relu
        x = relu(self.zz_norm(self.zz(x)))
        y = relu(self.y_norm(self.second_first(x)))
        x = relu(x + self.x_norm(self.a(y)))
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def functional(k, size=16, channels=3, filters=4, blocks=(2, 1), rescale=None, augment=False, bias=False, softmax=True, norm_shortcut=True, relu_op=False):
    """A functional model of basic blocks with 'same' padding."""
    L = k.layers
    conv = lambda x, f, s, stride: L.Conv2D(f, s, strides=stride, padding="same", use_bias=bias)(x)
    inputs = L.Input((size, size, channels))
    x = inputs
    if augment:
        x = k.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1)])(x)
    if rescale:
        x = L.Rescaling(*rescale)(x)
    x = L.Activation("relu")(L.BatchNormalization()(conv(x, filters, 3, 1)))
    for stage, count in enumerate(blocks):
        for i in range(count):
            f, stride = filters << stage, 2 if stage and not i else 1
            y = L.Activation("relu")(L.BatchNormalization()(conv(x, f, 3, stride)))
            y = L.BatchNormalization()(conv(y, f, 3, 1))
            if stride > 1:
                x = conv(x, f, 1, stride)
                if norm_shortcut:
                    x = L.BatchNormalization()(x)
            x = L.Add()([x, y])
            x = k.ops.relu(x) if relu_op else L.ReLU()(x)
    x = L.Dropout(0.5)(L.GlobalAveragePooling2D()(x))
    return k.Model(inputs, L.Dense(CLASSES, activation="softmax" if softmax else None)(x))


def bottleneck(k, first_stride=False):
    """Bottlenecks with PyTorch's padding, the large stem, an operator instead of Add, and normalisation in front.

    first_stride puts the stride into the first 1×1 convolution, as keras.applications.ResNet50 does."""
    L = k.layers
    inputs = L.Input((64, 64, 3))
    x = L.Normalization(mean=[123.7, 116.3, 103.5], variance=[58.4**2, 57.1**2, 57.4**2])(inputs)
    x = L.Conv2D(2, 7, strides=2, use_bias=False)(L.ZeroPadding2D(3)(x))
    x = L.ReLU()(L.BatchNormalization(epsilon=1e-5)(x))
    x = L.MaxPooling2D(3, strides=2)(L.ZeroPadding2D(((1, 1), (1, 1)))(x))
    for stage in range(2):
        f, stride = 2 << stage, 1 + stage
        s1, s2 = (stride, 1) if first_stride else (1, stride)
        y = L.ReLU()(L.BatchNormalization(epsilon=1e-5)(L.Conv2D(f, 1, strides=s1, use_bias=False)(x)))
        y = L.Conv2D(f, 3, strides=s2, use_bias=False)(L.ZeroPadding2D(1)(y))
        y = L.ReLU()(L.BatchNormalization(epsilon=1e-5)(y))
        y = L.BatchNormalization(epsilon=1e-5)(L.Conv2D(4 * f, 1, use_bias=False)(y))
        x = L.BatchNormalization(epsilon=1e-5)(L.Conv2D(4 * f, 1, strides=stride, use_bias=False)(x))
        x = L.ReLU()(x + y)
    x = L.Flatten()(L.AveragePooling2D(8)(x))
    return k.Model(inputs, L.Softmax()(L.Dense(CLASSES)(x)))


def option_a(k):
    """Shortcuts that subsample and pad channels with zeros, of standard layers."""
    L = k.layers
    inputs = L.Input((None, None, 1))
    x = L.ReLU()(L.BatchNormalization(epsilon=1e-5)(L.Conv2D(4, 3, padding="same", use_bias=False)(inputs)))
    for stage in range(2):
        f, stride = 4 << stage, 1 + stage
        y = L.Conv2D(f, 3, strides=stride, use_bias=False)(L.ZeroPadding2D(1)(x))
        y = L.ReLU()(L.BatchNormalization(epsilon=1e-5)(y))
        y = L.BatchNormalization(epsilon=1e-5)(L.Conv2D(f, 3, padding="same", use_bias=False)(y))
        if stage:
            x = L.AveragePooling2D(1, strides=2)(x)
            x = L.ZeroPadding2D(((0, 0), (2, 2)), data_format="channels_first")(x)
        x = L.ReLU()(L.Add()([y, x]))
    return k.Model(inputs, L.Dense(CLASSES)(L.GlobalAveragePooling2D()(x)))


def single(k):
    """airbench's network with shortcuts: a whitening stem, stages that pool, a factor on the logits."""
    L = k.layers
    conv = lambda x, f: L.Conv2D(f, 3, padding="same", use_bias=False)(x)
    inputs = L.Input((16, 16, 3))
    x = L.ReLU()(L.Conv2D(24, 2, padding="same")(inputs))
    for f in (4, 8):
        x = L.ReLU()(L.BatchNormalization(epsilon=1e-5, momentum=0.6)(L.MaxPooling2D()(conv(x, f))))
        x = L.ReLU()(L.Add()([L.BatchNormalization(epsilon=1e-5, momentum=0.6)(conv(x, f)), x]))
    x = L.Dense(CLASSES, use_bias=False)(L.GlobalMaxPooling2D()(x))
    return k.Model(inputs, L.Rescaling(1 / 9)(x))


def squeeze(k):
    """Squeeze-excitation, as Keras's own examples write it, and with a mean that keeps its axes."""
    L = k.layers
    inputs = L.Input((16, 16, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(inputs)))
    for keep in (False, True):
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x)))
        y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(y))
        s = L.GlobalAveragePooling2D(keepdims=keep)(y)
        if not keep:
            s = L.Reshape((1, 1, 8))(s)
        s = L.Dense(8, activation="sigmoid")(L.Dense(8, activation="relu")(s))
        y = L.Multiply()([s, y] if keep else [y, s])
        x = L.ReLU()(L.Add()([x, y]))
    return k.Model(inputs, L.Dense(CLASSES, activation="softmax")(L.GlobalAveragePooling2D()(x)))


def nested(k):
    """A model within a model, as transfer learning makes them."""
    L = k.layers
    inner = functional(k, softmax=False)
    base = k.Model(inner.inputs, inner.layers[-3].output, name="base")
    inputs = L.Input((16, 16, 3))
    x = L.Rescaling(1 / 127.5, -1)(inputs)
    return k.Model(inputs, L.Dense(CLASSES, name="predictions")(base(x)))


def adapted(k):
    """Normalisation that was adapted to data: its numbers are weights, not configuration."""
    inner = functional(k, blocks=(1,))
    norm = k.layers.Normalization()
    norm.adapt(np.random.default_rng(3).uniform(0, 255, (8, 16, 16, 3)).astype("float32"))
    inputs = k.layers.Input((16, 16, 3))
    return k.Model(inputs, inner(norm(inputs)))


def randomise(model, seed):
    """Weights of a trained model's size: kernels of their initialisation, statistics that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    new = []
    for w in model.get_weights():
        if w.ndim == 1 and np.issubdtype(w.dtype, np.floating):
            w = (w + rng.uniform(-0.2, 0.2, w.shape)).astype(w.dtype)
            w = np.where(np.abs(w) < 1e-3, 1e-3, w)
        new.append(w)
    model.set_weights(new)
    for l in model.layers:
        if hasattr(l, "finalize_state") and l.name.startswith("normalization") and getattr(l, "input_mean", 0) is None:
            l.finalize_state()  # as loading does: the numbers in use are copies of the weights


def predict(model, images):
    y = model(images.astype("float32"), training=False)
    return np.asarray(y, np.float64)


def write(name, path, expected, entry):
    with open(path, "rb") as f:
        raw = f.read()
    os.remove(path)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="", compresslevel=9) as z:
        z.write(raw)
    with open(os.path.join(OUT, name + ".gz"), "wb") as f:
        f.write(packed.getvalue())
    print(name, len(raw), len(packed.getvalue()))
    if entry is not None:
        expected[name] = entry


def main():
    os.makedirs(OUT, exist_ok=True)
    expected = {}
    cases = []  # name, model, files, size of the images, channels, factor of the images
    for k, prefix in [(keras, ""), (tf_keras, "keras2_")]:
        k.utils.set_random_seed(7)
        suffixes = [".keras", ".h5", ".weights.h5"]
        cases.append((prefix + "functional", functional(k, rescale=(1 / 255,), augment=not prefix), suffixes, 16, 3, 255))
        net = net_class(k)([2, 1], 4)
        net(np.zeros((1, 16, 16, 3), "float32"))
        cases.append((prefix + "subclass", net, [".weights.h5"] if not prefix else [".weights.h5", "_weights.h5"], 16, 3, 1))
        cases.append((prefix + "nested", nested(k), [".keras", ".h5"], 16, 3, 255))
        cases.append((prefix + "bottleneck", bottleneck(k), [".keras"], 64, 3, 255))
    odd = Odd()
    odd(np.zeros((1, 16, 16, 3), "float32"))
    cases += [
        ("odd_names", odd, [".keras", ".weights.h5"], 16, 3, 1),
        ("adapted", adapted(keras), [".keras", ".h5"], 16, 3, 255),
        ("biased", functional(keras, blocks=(1, 1), bias=True, norm_shortcut=False, relu_op=True), [".keras"], 16, 3, 1),
        ("option_a", option_a(keras), [".keras"], 32, 1, 1),
        ("first_stride", bottleneck(keras, first_stride=True), [".keras"], 64, 3, 255),
        ("single", single(keras), [".keras"], 16, 3, 1),
        ("squeeze", squeeze(keras), [".keras", ".h5"], 16, 3, 1),
    ]
    for i, (name, model, suffixes, size, channels, factor) in enumerate(cases):
        randomise(model, i)
        outputs = predict(model, formula.images(0, 2, size, size, channels) * factor)
        softmax = bool(np.allclose(outputs.sum(axis=1), 1))
        for suffix in suffixes:
            path = os.path.join(OUT, name + suffix)
            if "weights" in suffix:
                model.save_weights(path)
            else:
                model.save(path)
            write(name + suffix, path, expected, {"outputs": outputs.tolist(), "softmax": softmax, "size": size, "channels": channels, "factor": factor})

    refused = {}
    inputs = keras.layers.Input((8, 8, 3))
    path = os.path.join(OUT, "lambda.keras")
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2, name="double")(x)).save(path)
    write("lambda.keras", path, expected, None)
    refused["lambda.keras"] = 'layer "double", Lambda: it holds code'

    @keras.saving.register_keras_serializable("mine")
    class Twice(keras.layers.Layer):
        def call(self, x):
            return x * 2

    path = os.path.join(OUT, "custom.keras")
    keras.Model(inputs, Twice(name="twice")(x)).save(path)
    write("custom.keras", path, expected, None)
    refused["custom.keras"] = 'layer "twice" is of the class "mine>Twice"'

    path = os.path.join(OUT, "swish.keras")
    keras.Model(inputs, keras.layers.Activation("swish", name="act")(x)).save(path)
    write("swish.keras", path, expected, None)
    refused["swish.keras"] = 'layer "act", Activation: activation "silu"'

    with open(os.path.join(OUT, "expected.json"), "w") as f:
        json.dump({"keras": keras.__version__, "files": expected, "refused": refused}, f, separators=(",", ":"), sort_keys=True)


def large(source, out):
    """The tutorial's own class and ResNet50 as Keras has it, with what they predict."""
    os.makedirs(out, exist_ok=True)
    expected = {}
    scope = {"tf": type("tf", (), {"keras": keras}), "Model": keras.Model}
    for name in ["Conv2D", "BatchNormalization", "Activation", "MaxPool2D", "Dropout", "Flatten", "Dense"]:
        scope[name] = getattr(keras.layers, name)
    exec(compile(open(source).read(), source, "exec"), scope)
    keras.utils.set_random_seed(1)
    tutorial = scope["ResNet18"]([2, 2, 2, 2])
    tutorial(np.zeros((1, 32, 32, 3), "float32"))
    applications = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    for model, size, names in [
        (tutorial, 32, ["tutorial.weights.h5"]),
        (applications, 64, ["resnet50.keras", "resnet50.h5", "resnet50.weights.h5"]),
        (tf_keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10), 64, ["resnet50_keras2_weights.h5"]),
    ]:
        randomise(model, 1)
        outputs = predict(model, formula.images(0, 4, size, size)).tolist()
        for name in names:
            path = os.path.join(out, name)
            model.save_weights(path) if "weights" in name else model.save(path)
            expected[name] = {"outputs": outputs, "softmax": True, "size": size, "channels": 3, "factor": 1}
    with open(os.path.join(out, "expected.json"), "w") as f:
        json.dump({"files": expected}, f)


def check(paths):
    """What residual wrote: Keras loads it, in safe mode, and predicts the golden vectors' logits."""
    import base64
    import zipfile

    from PIL import Image

    for path in paths:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        ours = json.loads(zipfile.ZipFile(path).read("metadata.json"))["residual"]
        p, golden = json.loads(ours["preprocess"]), json.loads(ours["golden"])
        worst, pictures = 0.0, 0
        included = isinstance(model.layers[1], keras.layers.Rescaling)
        for g in golden:
            picture = Image.open(io.BytesIO(base64.b64decode(g["picture"])))
            if picture.size != (p["width"], p["height"]) or picture.mode != "RGB":
                continue  # resizing is Pillow's or ours, not Keras's
            x = np.asarray(picture, np.float64)[None]
            if not included:
                x = (x * p["scale"] - np.array(p.get("mean") or 0)) / np.array(p.get("std") or 1)
            y, want = predict(model, x)[0], np.array(g["logits"])
            if np.allclose(y.sum(), 1) and (y >= 0).all():
                e = np.exp(want - want.max())
                want = e / e.sum()
            worst = max(worst, np.abs(y - want).max() / max(1, np.abs(want).max()))
            pictures += 1
        if not pictures:
            raise SystemExit(f"{path}: no golden vector of the network's own size")
        if not worst < 1e-4:
            raise SystemExit(f"{path}: differs by {worst:.2g}")
        print(f"{path}: {len(model.layers)} layers, {pictures} golden vectors, worst difference {worst:.2g}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--large"]:
        large(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["--check"]:
        check(sys.argv[2:])
    else:
        main()
