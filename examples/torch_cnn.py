"""A convolutional network with Dropout2d, in channels-last memory: python examples/torch_cnn.py"""

import torch
from torch import nn
from torch_compare import compare, digits


def build():
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 64, 3, padding=1),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 10),
    )
    return model.to(memory_format=torch.channels_last)


if __name__ == "__main__":
    compare(build, digits(), __doc__)
