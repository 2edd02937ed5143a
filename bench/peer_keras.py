"""One measurement of Keras on TensorFlow with the tutorial network, as JSON.

    python bench/peer_keras.py --mode train --batch 32 --dtype float32 --method fit

The tutorial's network, loss and optimizer as Keras users write them; bfloat16 is
the policy mixed_bfloat16. Methods: fit and train_on_batch train; predict (the
call that the tutorial makes), function (the network in a tf.function) and frozen
(its weights as constants, so that TensorFlow folds batch normalisation) infer.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
p = argparse.ArgumentParser()
p.add_argument("--mode", default="train", choices=["train", "infer"])
p.add_argument("--batch", type=int, default=32)
p.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
p.add_argument("--method", default="", choices=["", "fit", "train_on_batch", "predict", "function", "frozen"])
p.add_argument("--xla", action="store_true", help="compile with XLA (jit_compile)")
p.add_argument("--threads", type=int, default=2)
p.add_argument("--runs", type=int, default=5)
p.add_argument("--serve", action="store_true", help="measure at each line of standard input")
a = p.parse_args()

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("OMP_NUM_THREADS", str(a.threads))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

import alternate  # noqa: E402


def conv(x, filters, size, stride):
    return layers.BatchNormalization()(layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x))


def network():
    images = keras.Input((32, 32, 3))
    x = layers.ReLU()(conv(images, 64, 3, 1))
    for stage, filters in enumerate([64, 128, 256, 512]):
        for block in range(2):
            stride = 2 if stage and not block else 1
            shortcut = conv(x, filters, 1, stride) if stride == 2 else x
            x = conv(layers.ReLU()(conv(x, filters, 3, stride)), filters, 3, 1)
            x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10, kernel_regularizer=keras.regularizers.L2(0.01))(x)
    return keras.Model(images, layers.Activation("softmax", dtype="float32")(x))


def main():
    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if a.dtype == "bfloat16" else "float32")
    model = network()
    x = np.full((a.batch, 32, 32, 3), 0.5, np.float32)
    y = np.zeros(a.batch, np.int32)
    method = a.method or ("fit" if a.mode == "train" else "predict")
    if a.mode == "train":
        model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy",
                      metrics=["sparse_categorical_accuracy"], jit_compile=a.xla)
        if method == "train_on_batch":
            xt, yt = tf.constant(x), tf.constant(y)

            def step():
                model.train_on_batch(xt, yt)

            alternate.answer(step, a.batch, a.runs, a.serve, tensorflow=tf.__version__, keras=keras.__version__)
            return
        # fit is called once for all steps: the callback, which Keras calls after each
        # step, waits there for the next measurement.
        fitted(model, x, y)
        return
    xt = tf.constant(x)
    if method == "predict":
        model.compile(jit_compile=a.xla)

        def step():
            model.predict_on_batch(xt)
    else:
        call = tf.function(lambda images: model(images, training=False), jit_compile=a.xla)
        if method == "frozen":
            from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

            call = convert_variables_to_constants_v2(call.get_concrete_function(tf.TensorSpec(xt.shape, tf.float32)))

        def step():
            out = call(xt)
            (out[0] if isinstance(out, (list, tuple)) else out).numpy()

    alternate.answer(step, a.batch, a.runs, a.serve, tensorflow=tf.__version__, keras=keras.__version__)


def fitted(model, x, y):
    """Measures inside one call of fit, by a thread of its own that takes steps one by one."""
    import threading

    go, done = threading.Semaphore(0), threading.Semaphore(0)

    class Gate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            go.acquire()

        def on_train_batch_end(self, batch, logs=None):
            done.release()

    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    threading.Thread(target=lambda: model.fit(data, steps_per_epoch=1 << 30, epochs=1, verbose=0, callbacks=[Gate()]), daemon=True).start()

    def step():
        go.release()
        done.acquire()

    alternate.answer(step, a.batch, a.runs, a.serve, tensorflow=tf.__version__, keras=keras.__version__)
    sys.stdout.flush()
    os._exit(0)  # fit does not end


main()
