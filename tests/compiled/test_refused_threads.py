"""Where the system gives no more threads: fewer, the same results, never the process's end."""

import sys

import pytest
from processes import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_NPROC as Linux has it")

# Root may have any number of threads; who is nobody may not read Python's own modules any more.
LIMITED = """
import os, resource, sys, threading, time
import numpy as np
import fastdrop
from fastdrop import Key, layers, models

def allow(threads):
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, most))

def refused():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return True
    return False

def count():
    return len(os.listdir("/proc/self/task"))

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
key = Key(1)
x = np.random.default_rng(0).normal(size=(1 << 9, 1 << 13)).astype(np.float32)
maps = x.reshape(64, 4, 128, 128)
"""

CALLS = """
def calls(n):
    bias = x[0]
    y = fastdrop.bias_act_dropout(x, bias, "relu", key=key, num_threads=n)
    return [
        fastdrop.dropout(x, key=key, num_threads=n),
        fastdrop.dropout(x, 0.1, key=key, num_threads=n, shared_axes=0),
        fastdrop.dropout(x[:, ::-1], 0.1, key=key, num_threads=n, return_mask=True)[1],
        fastdrop.dropout_add(x, x, key=key, num_threads=n),
        fastdrop.softmax_dropout(x, key=key, num_threads=n),
        fastdrop.softmax_dropout_backward(x, x, key=key, num_threads=n),
        fastdrop.alpha_dropout(x, key=key, num_threads=n),
        fastdrop.gaussian_noise(x, 1, key=key, num_threads=n),
        fastdrop.zoneout(x, x + 1, key=key, num_threads=n),
        fastdrop.drop_block2d(maps, key=key, num_threads=n),
        y,
        *fastdrop.bias_act_dropout_backward(x, y, "relu", num_threads=n),
        fastdrop.dropout_mask(1 << 24, 0.1, key=key, packed=True),
        fastdrop.apply_mask(x, fastdrop.dropout_mask(x.shape, key=key), 0.5),
        weights(),
    ]

def weights():
    stack = [layers.Dense(300, "relu"), layers.Dropout(0.5), layers.Dense(3)]
    model = models.Sequential(stack, seed=1)
    model.compile("adam", "mse")
    model.fit(x[:, :900], x[:, 900:903], 128, 1, verbose=0)
    return model.get_weights()[0]

def same(a, b):
    return all(p.tobytes() == q.tobytes() for p, q in zip(a, b, strict=True))
"""


def outcome(code, imports=""):
    done = run(imports + LIMITED + CALLS + code, OMP_NUM_THREADS="4", OPENBLAS_NUM_THREADS="4")
    if done.stdout.startswith("not refused"):
        pytest.skip("this system refuses no threads")
    return done.returncode, done.stdout, done.stderr[-500:]


REFUSED = """
expected = calls(1)
before = count()
allow(0)
if not refused():
    sys.exit(print("not refused"))
assert same(calls(4), expected)
fastdrop.set_num_threads(9)
assert same(calls(None), expected)
assert count() == before
print("fine")
"""


def test_none_at_all():
    code = REFUSED
    assert outcome(code) == (0, "fine\n", "")


SHRINKING = """
expected = calls(2)
before = count()
allow(0)
if not refused():
    sys.exit(print("not refused"))
assert same(calls(7), expected)
assert count() == before

def call(number):
    results[number] = fastdrop.dropout(x, key=key, num_threads=2 + number)

results = [None] * 4
allow(most)
callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
for caller in callers[:2]:
    caller.start()
allow(0)
for number in 2, 3:
    call(number)
for caller in callers[:2]:
    caller.join()
assert all(same([result], expected[:1]) for result in results)

allow(most)
time.sleep(0.15)
fastdrop.dropout(x, key=key, num_threads=7)
assert count() > before, count()    # it has asked again
print("fine")
"""


def test_limits_that_shrink_and_grow():
    assert outcome(SHRINKING) == (0, "fine\n", "")


TORCH = """
torch.set_num_threads(1)    # PyTorch's own threads end the process where there are none
a = torch.from_numpy(x)
torch.manual_seed(0)
expected = functional.dropout(a)
allow(0)
if not refused():
    sys.exit(print("not refused"))
torch.manual_seed(0)
rules.thread_limit = lambda: 4
assert torch.equal(functional.dropout(a), expected)
print("fine")
"""


def test_in_pytorch():
    pytest.importorskip("torch")
    imports = "import torch\nfrom fastdrop.torch import functional, rules\n"
    assert outcome(TORCH, imports) == (0, "fine\n", "")
