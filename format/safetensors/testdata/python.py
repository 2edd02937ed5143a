"""Makes python.safetensors with the reference implementation; run in this directory:

    python3 python.py

Made with safetensors 0.8.0, numpy 2.4.6, ml_dtypes 0.6.0.
"""
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

tensors = {
    "f64": np.array([[0.1, -2.5], [np.inf, 1e300]], np.float64),
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
    "f16": np.array([1.5, -65504], np.float16),
    "bf16": np.array([1.5, -3e38], ml_dtypes.bfloat16),
    "i64": np.array([-(2**63), 2**63 - 1], np.int64),
    "i32": np.array([[-(2**31)], [7]], np.int32),
    "i16": np.array([-32768, 32767, 1], np.int16),
    "i8": np.array([-128, 127, 0], np.int8),
    "u8": np.array([0, 255, 1], np.uint8),
    "bool": np.array([True, False, True]),
    "scalar": np.array(42, np.int64),
    "empty": np.zeros((3, 0, 2), np.float32),
    'ünïcode "quoted" <&>\u2028': np.array([9], np.uint8),
}
save_file(tensors, "python.safetensors", metadata={"format": "pt", "quote": 'a "b" \\ \n é'})
