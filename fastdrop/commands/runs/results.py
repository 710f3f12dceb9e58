"""What `fastdrop train` leaves in its folder."""

from __future__ import annotations

PICTURE, RESULTS = "training.png", "training.json"
MODELS = ("model-without-dropout.safetensors", "model-with-dropout.safetensors")
FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")

Figures = dict[str, list[float]]  # History.history
