"""Arrays as images in a page: PNG in a data URL. Only this module imports Pillow."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from fastdrop.layers import Array

__all__ = ["as_url", "contact_sheet"]

LEAST = 128  # pixels of an image's longer side, for browsers that would blur a smaller one
WITH, WITHOUT = (11, 99, 165), (179, 71, 0)  # the page's two colours, for signs


def as_url(values: Array) -> str:
    """Return an image as a data URL: grey where it has no channels, its largest value white.

    Parameters
    ----------
    values : ndarray, (height, width) or (height, width, channels)
        Of any range; channels may be 1, 3 or 4, others are averaged.
    """
    grey = values.astype(np.float64)
    if grey.ndim == 3 and grey.shape[2] not in (3, 4):
        grey = grey.mean(axis=2)
    low, high = grey.min(), grey.max()
    level = (grey - low) / (high - low or 1)
    return _encode((255 * level).round().astype(np.uint8))


def contact_sheet(images: Array, columns: int = 5) -> str:
    """Return weights as images side by side, as a data URL.

    What is above 0 is blue and what is below is orange, the more opaque the larger; 0 is nothing,
    so that the sheet lies well on a light page and on a dark one. Each image has its own scale.

    Parameters
    ----------
    images : ndarray, (images, height, width)
    columns : int
    """
    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for i, image in enumerate(images.astype(np.float64)):
        strength = np.abs(image) / (np.abs(image).max() or 1)
        tile = np.empty((height, width, 4), np.uint8)
        tile[..., :3] = np.where((image > 0)[..., np.newaxis], WITH, WITHOUT)
        tile[..., 3] = (255 * strength).round()
        y, x = i // columns * (height + 1), i % columns * (width + 1)
        sheet[y : y + height, x : x + width] = tile
    return _encode(sheet)


def _encode(pixels: Array) -> str:
    """Return pixels as a PNG's data URL, small ones several times as large."""
    times = max(-(-LEAST // max(pixels.shape[:2])), 1)
    larger = pixels.repeat(times, axis=0).repeat(times, axis=1)
    file = io.BytesIO()
    Image.fromarray(larger).save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
