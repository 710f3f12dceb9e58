"""Small files in the format of MNIST."""

import struct

import numpy as np


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_arrays():
    images = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2)
    labels = np.array([0, 1, 2, 1, 0], np.uint8)
    return images, labels, images[:2] + 1, labels[:2]
