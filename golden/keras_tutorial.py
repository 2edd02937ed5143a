"""Golden files of the tutorial network, from Keras 3 on TensorFlow.

    python golden/keras_tutorial.py narrow     filters 8, batch 8
    python golden/keras_tutorial.py full       filters 64, batch 2
    python golden/keras_tutorial.py ops        'same' padding, one op at a time
    python golden/keras_tutorial.py summary    what model.summary() prints

With --tutorial FILE (a Python file that defines the tutorial's own ResNet18
class) the first two also train that class through compile and train_on_batch
and fail unless it computes what the network written here computes; summary
fails unless it prints the same. Everything but summary is float64.
"""

import argparse
import importlib.util
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import formula

MODULES = (keras, tf)
CLASSES = 10
L2 = 0.01
ADAM = {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
STEPS = 10
SIZE = 32
FIRST = {8: 57, 2: 1}  # batch size → the batch of step 0, chosen by margins.py


class ResnetBlock(keras.Model):
    """Two 3×3 convolutions and a shortcut, projected when stride is 2."""

    def __init__(self, filters, stride, project):
        super().__init__()
        self.conv1 = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)
        self.bn1 = layers.BatchNormalization()
        self.relu1 = layers.Activation("relu")
        self.conv2 = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.bn2 = layers.BatchNormalization()
        if project:
            self.downsample0 = layers.Conv2D(filters, 1, strides=stride, padding="same", use_bias=False)
            self.downsample1 = layers.BatchNormalization()
        self.relu2 = layers.Activation("relu")
        self.project = project

    def call(self, x):
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = self.downsample1(self.downsample0(x)) if self.project else x
        return self.relu2(y + shortcut)


class ResNet18(keras.Model):
    """The tutorial network, up to the logits."""

    def __init__(self, blocks, filters):
        super().__init__()
        self.conv1 = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.bn1 = layers.BatchNormalization()
        self.relu = layers.Activation("relu")
        self.stages = keras.Sequential(
            ResnetBlock(filters << s, 2 if s > 0 and b == 0 else 1, s > 0 and b == 0)
            for s in range(len(blocks))
            for b in range(blocks[s])
        )
        self.pool = layers.GlobalAveragePooling2D()
        self.fc = layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(L2))

    def call(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.pool(self.stages(x)))


def parts(model, blocks):
    """torchvision's name of each layer → the layer. Knows both spellings of the
    attributes, so that it serves the tutorial's classes too."""

    def get(owner, *names):
        return next((getattr(owner, n) for n in names if hasattr(owner, n)), None)

    out = {"conv1": get(model, "conv1", "c1"), "bn1": get(model, "bn1", "b1")}
    stages = iter(get(model, "stages", "blocks").layers)
    for s, count in enumerate(blocks):
        for b in range(count):
            block = next(stages)
            for name, mine, theirs in [
                ("conv1", "conv1", "c1"),
                ("bn1", "bn1", "b1"),
                ("conv2", "conv2", "c2"),
                ("bn2", "bn2", "b2"),
                ("downsample.0", "downsample0", "down_c1"),
                ("downsample.1", "downsample1", "down_b1"),
            ]:
                layer = get(block, mine, theirs)
                if layer is not None:
                    out[f"layer{s + 1}.{b}.{name}"] = layer
    out["fc"] = get(model, "fc", "f1")
    return out


def variables(model, blocks):
    """torchvision's name → Keras variable."""
    out = {}
    for name, layer in parts(model, blocks).items():
        if isinstance(layer, layers.BatchNormalization):
            out[name + ".weight"] = layer.gamma
            out[name + ".bias"] = layer.beta
            out[name + ".running_mean"] = layer.moving_mean
            out[name + ".running_var"] = layer.moving_variance
        else:
            out[name + ".weight"] = layer.kernel
            if layer.use_bias:
                out[name + ".bias"] = layer.bias
    return out


def canonical(x):
    """Keras's order of axes → torchvision's: [KH,KW,C,OC] → [OC,C,KH,KW], [C,OC] → [OC,C]."""
    x = np.asarray(x)
    return x.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[x.ndim])


def keras_order(x):
    return x.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[x.ndim])


def fill(model, blocks):
    for name, v in variables(model, blocks).items():
        shape = canonical(np.zeros(v.shape)).shape
        v.assign(keras_order(formula.weight(name, shape)))


def state(model, blocks):
    return {name: canonical(v.numpy()) for name, v in variables(model, blocks).items()}


def batch(step, n):
    return formula.images(FIRST[n] + step, n, SIZE, SIZE), formula.labels(FIRST[n] + step, n, CLASSES)


def build(cls, blocks, filters, n):
    model = cls(blocks, filters)
    model(np.zeros((n, SIZE, SIZE, 3)))  # makes the variables
    fill(model, blocks)
    return model


def train(blocks, filters, n, number=np.float64):
    """Ten Adam steps; returns what the golden files record. Keras's ops.cast takes a
    Python float through float32 even to float64, and so computes with 0.0099999998
    and the like, as the tutorial does. The files shall hold the update that the
    formula means: numpy's float64 is cast as it is."""
    model = build(ResNet18, blocks, filters, n)
    model.fc.kernel_regularizer.l2 = number(L2)
    named = variables(model, blocks)
    assert all(v.dtype == "float64" for v in named.values())
    trainable = {k: v for k, v in named.items() if v.trainable}
    optimizer = keras.optimizers.Adam(**{k: number(v) for k, v in ADAM.items()})
    optimizer.build(list(trainable.values()))

    @tf.function
    def gradients(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            loss = tf.reduce_mean(each) + tf.add_n(model.losses)
        return logits, loss, tape.gradient(loss, [v.value for v in trainable.values()])

    x, y = batch(0, n)
    out = {"logits/inference": model(x, training=False).numpy(), "losses": [], "after": {}}
    for step in range(STEPS):
        x, y = batch(step, n)
        logits, loss, grads = gradients(x, y)
        out["losses"].append(float(loss))
        if step == 0:
            out["logits/training"] = logits.numpy()
            out["gradients"] = {k: canonical(g.numpy()) for k, g in zip(trainable, grads)}
        optimizer.apply(grads)
        if step + 1 in (1, STEPS):
            out["after"][step + 1] = state(model, blocks)
    x, _ = batch(0, n)
    out["logits/inference after step 10"] = model(x, training=False).numpy()
    return out


def check_statistics(out, n):
    """Asserts how the first batch norm's moving statistics were updated."""
    kernel = formula.weight("conv1.weight", out["gradients"]["conv1.weight"].shape)
    x = tf.nn.conv2d(batch(0, n)[0], keras_order(kernel), 1, "SAME").numpy()
    x = x.reshape(-1, x.shape[-1])
    for name, now in [("bn1.running_mean", x.mean(0)), ("bn1.running_var", x.var(0))]:
        want = 0.99 * formula.weight(name, now.shape) + 0.01 * now  # x.var divides by the count
        np.testing.assert_allclose(out["after"][1][name], want, rtol=1e-12)


def check_tutorial(path, blocks, filters, n, out):
    """Trains the tutorial's own class as the tutorial does and compares."""
    spec = importlib.util.spec_from_file_location("tutorial", path)
    tutorial = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tutorial)

    class InTrainingMode(tutorial.ResNet18):
        # The tutorial's call takes no training argument. Keras 2, for which it was
        # written, passed the mode on all the same; Keras 3 does not, and would train
        # with every batch norm in inference mode, its moving statistics at rest.
        def call(self, inputs, training=None):
            return super().call(inputs)

    model = build(InTrainingMode, blocks, filters, n)
    worst = 0.0

    def close(what, got, want):
        nonlocal worst
        got, want = np.asarray(got), np.asarray(want)
        error = float(np.max(np.abs(got - want)) / np.sqrt(np.mean(want * want)))
        worst = max(worst, error)
        assert error < 1e-12, f"{what}: the tutorial's own class differs by {error:.2g}"

    x, _ = batch(0, n)
    close("probabilities", model(x, training=False), tf.nn.softmax(out["logits/inference"]))
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=False),
        metrics=["sparse_categorical_accuracy"],
    )
    for step in range(STEPS):
        model.reset_metrics()
        close(f"loss of step {step}", model.train_on_batch(*batch(step, n))[0], out["losses"][step])
        if step + 1 in out["after"]:
            for name, v in state(model, blocks).items():
                close(f"{name} after step {step + 1}", v, out["after"][step + 1][name])
    print(f"the tutorial's own class, {STEPS} steps: worst difference {worst:.2g}")


def network_golden(case, filters, n, tutorial):
    blocks = [2, 2, 2, 2]
    out = train(blocks, filters, n)
    check_statistics(out, n)
    if tutorial:
        check_tutorial(tutorial, blocks, filters, n, train(blocks, filters, n, float))
    network = {
        "convention": "keras",
        "block": "basic",
        "stem": "small",
        "shortcut": "projection",
        "blocks": blocks,
        "filters": filters,
        "classes": CLASSES,
        "batch": n,
        "first_batch": FIRST[n],
        "height": SIZE,
        "width": SIZE,
        "l2": L2,
    }
    optimizer = {
        "name": "adam",
        "form": "keras",
        "learning_rate": ADAM["learning_rate"],
        "beta1": ADAM["beta_1"],
        "beta2": ADAM["beta_2"],
        "epsilon": ADAM["epsilon"],
        "steps": STEPS,
    }
    values = {k: formula.numbers(out[k]) for k in out if k.startswith("logits")}
    values["losses"] = out["losses"]
    formula.write(
        case,
        {
            "network": network,
            "optimizer": optimizer,
            "values": values,
            "digests": {"gradients": formula.digests(out["gradients"])},
        },
        MODULES,
        "logits [N,10] of step 0's batch; losses[k]: mean cross-entropy and penalty of step k, "
        "before its update; gradients of losses[0]",
    )
    for step, tensors in out["after"].items():
        formula.write(
            f"{case}.step{step}",
            {
                "network": network,
                "optimizer": {**optimizer, "steps": step},
                "digests": {"variables": formula.digests(tensors)},
            },
            MODULES,
            f"weights and moving statistics after {step} Adam step(s)",
        )


def ops_golden():
    """Convolution and max-pooling with padding='same', where the two sides differ."""
    cases = []

    def record(name, op, x, attributes, shapes, call):
        tape_inputs = {k: tf.constant(v) for k, v in x.items()}
        with tf.GradientTape() as tape:
            tape.watch(list(tape_inputs.values()))
            y = call(tape_inputs)
        dy = formula.u(f"{name}.dOut", int(np.prod(y.shape))).reshape(y.shape)
        grads = tape.gradient(y, tape_inputs, output_gradients=tf.constant(dy))
        outputs = {"out": (y.numpy(), list(y.shape))}
        for k, g in grads.items():
            g = canonical(g.numpy()) if k == "weight" else g.numpy()
            outputs["d_" + k] = (g, list(g.shape))
        cases.append(
            {
                "name": name,
                "op": op,
                "attributes": attributes,
                "inputs": {**shapes, "dOut": {"rule": "u", "shape": list(y.shape)}},
                "outputs": formula.results(outputs),
            }
        )

    for size, k, stride in [(8, 3, 2), (7, 3, 2), (8, 1, 2), (7, 1, 2), (8, 3, 1), (9, 5, 3), (6, 7, 2)]:
        name = f"conv same {size}x{size} kernel {k} stride {stride}"
        xs, ws = [2, size, size, 3], [4, 3, k, k]
        x = formula.u(f"{name}.x", int(np.prod(xs))).reshape(xs)
        w = formula.u(f"{name}.weight", int(np.prod(ws))).reshape(ws)
        record(
            name,
            "conv",
            {"x": x, "weight": keras_order(w)},
            {"stride": stride, "padding": pads(size, k, stride)},
            {"x": {"rule": "u", "shape": xs}, "weight": {"rule": "u", "shape": ws}},
            lambda t, s=stride: keras.ops.conv(t["x"], t["weight"], strides=s, padding="same"),
        )
    for size, k, stride in [(8, 3, 2), (7, 2, 2), (5, 3, 1)]:
        name = f"max_pool same {size}x{size} window {k} stride {stride}"
        xs = [2, size, size, 3]
        x = formula.ties(f"{name}.x", int(np.prod(xs))).reshape(xs) - 2  # padding must not win over negatives
        record(
            name,
            "max_pool",
            {"x": x},
            {"window": k, "stride": stride, "padding": pads(size, k, stride)},
            {"x": {"rule": "ties-2", "shape": xs}},
            lambda t, k=k, s=stride: keras.ops.max_pool(t["x"], k, strides=s, padding="same"),
        )
    formula.write("keras_ops", {"ops": cases}, MODULES, "ops with TensorFlow's 'same' padding; d_…: gradients of Σ out·dOut")


def pads(size, k, stride):
    """[top, bottom, left, right] of 'same': the odd one goes after."""
    out = -(-size // stride)
    total = max((out - 1) * stride + k - size, 0)
    return [total // 2, total - total // 2] * 2


def summary_golden(tutorial):
    keras.config.set_floatx("float32")

    def text(model, **options):
        lines = []
        model.summary(print_fn=lambda s, **_: lines.append(s), **options)
        return "\n".join(lines).rstrip() + "\n"

    def both(cls, *arguments):
        keras.utils.clear_session()
        model = cls([2, 2, 2, 2], *arguments)
        model(keras.Input((SIZE, SIZE, 3)))  # makes the variables
        return text(model), text(model, expand_nested=True)

    got = both(ResNet18, 64)
    if tutorial:
        spec = importlib.util.spec_from_file_location("tutorial", tutorial)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert both(module.ResNet18) == got, "the tutorial's own class prints another summary"
        print("the tutorial's own class prints the same summaries")
    for name, s in zip(["keras_summary.txt", "keras_summary_nested.txt"], got):
        with open(os.path.join(formula.HERE, name), "w", encoding="utf-8") as f:
            f.write(s)
        print(f"{name}: {len(s.encode())} bytes")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["narrow", "full", "ops", "summary"])
    p.add_argument("--tutorial", help="Python file with the tutorial's ResNet18, to compare with")
    a = p.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)  # sums in one order
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.config.set_floatx("float64")
    if a.what == "narrow":
        network_golden("keras_tutorial_narrow", 8, 8, a.tutorial)
    elif a.what == "full":
        network_golden("keras_tutorial_full", 64, 2, a.tutorial)
    elif a.what == "ops":
        ops_golden()
    else:
        summary_golden(a.tutorial)


if __name__ == "__main__":
    main()
