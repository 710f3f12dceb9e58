import os
import signal
import sys
import tempfile
from pathlib import Path

# OpenBLAS's threads spin after each product. On a machine that has other work to do, that has made
# training steps twenty times slower; the small models of these tests gain nothing by them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell has what it starts in the background ignore Ctrl-C, and so does all that is started there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

import fastdrop

# A busy machine is no error; and what lands does not hang on the luck of a draw.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def nothing_left_enabled():
    """The next test in this process, whichever it is, meets PyTorch's own dropout."""
    yield
    module = sys.modules.get("fastdrop.torch.enable")
    assert module is None or not module._holders


@pytest.fixture(params=fastdrop.available_isas())
def isa(request):
    """Each instruction set in turn, in this one process."""
    with fastdrop.use_isa(request.param):
        yield request.param


@pytest.fixture
def tmp_path():
    """A folder with a short name: messages have 200 characters, and pytest's own names are long."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)
