"""Threads: how many, what limits them, forks, callers in several threads."""

import multiprocessing
import os
import sys
import threading
import time

import numpy as np
import pytest
from processes import OPENMP, forked, run, status_of
from threadpoolctl import threadpool_limits

import fastdrop
from fastdrop import Key
from fastdrop.compiled import _core, _train

KEY = Key(1)
LARGE = np.ones(5 << 20, np.float32)  # large enough for threads by default


@pytest.fixture
def restore_threads():
    before = fastdrop.get_num_threads()
    yield
    fastdrop.set_num_threads(before)


@pytest.mark.usefixtures("restore_threads")
def test_set_num_threads():
    expected = fastdrop.dropout(LARGE, key=KEY, num_threads=1).tobytes()
    for n in (1, 2, 5):
        fastdrop.set_num_threads(n)
        assert fastdrop.get_num_threads() == n
        assert fastdrop.dropout(LARGE, key=KEY).tobytes() == expected


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError)])
def test_set_num_threads_refuses(n, error):
    with pytest.raises(error, match="num_threads: expected"):
        fastdrop.set_num_threads(n)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"FASTDROP_NUM_THREADS": "5", "OMP_NUM_THREADS": "3"}, 5),
    ],
)
def test_default_threads(environment, expected):
    result = run("import fastdrop; print(fastdrop.get_num_threads())", **environment)
    threads = int(result.stdout)
    assert threads == expected or (not environment and threads < expected)  # a cgroup's quota


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5"])
def test_a_wrong_number_of_threads_in_the_environment(value):
    result = run("import fastdrop", FASTDROP_NUM_THREADS=value)
    assert f"ValueError: FASTDROP_NUM_THREADS: expected a number in [1, 99999], got '{value}'" in (
        result.stderr
    )


@OPENMP
def test_threadpoolctl_limits_us():
    with threadpool_limits(1):
        assert _core.openmp_max_threads() == 1
        assert fastdrop.show_config("dicts")["threads"] == 1
    with threadpool_limits(3, user_api="openmp"):
        assert _core.openmp_max_threads() == 3


def test_python_threads_may_call_at_once():
    expected = fastdrop.dropout(LARGE, key=KEY).tobytes()
    results = [None] * 4

    def call(i):
        for _ in range(3):
            results[i] = fastdrop.dropout(LARGE, key=KEY, num_threads=1 + i % 2).tobytes()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for result in results)


def longest_pause(call):
    """The longest time that this thread stood still while another made a call, and the call's."""
    span, ticks = [], []

    def run():
        span.append(time.perf_counter())
        call()
        span.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    while len(span) < 2:
        ticks.append(time.perf_counter())
    thread.join()
    begin, end = span
    times = [begin, *(tick for tick in ticks if begin < tick < end), end]
    return max(np.diff(times)), end - begin


def test_other_python_threads_go_on_meanwhile():
    x = np.ones(1 << 24, np.float32)
    found = []
    with fastdrop.use_isa("generic"):  # which takes its time
        for _ in range(20):  # a busy machine may not let this thread run at once
            pause, whole = longest_pause(
                lambda: fastdrop.dropout(x, 0.1, key=KEY, out=x, num_threads=1)
            )
            if pause < whole / 2:
                return
            found.append((pause, whole))
    raise AssertionError(f"the GIL was held all the time: {found}")


THREADS_STARTED = """
import os, numpy as np, fastdrop
from threadpoolctl import threadpool_limits
def started(call):
    before = len(os.listdir("/proc/self/task"))
    call()
    return len(os.listdir("/proc/self/task")) - before
small, large = np.ones(1 << 16, np.float32), np.ones(5 << 20, np.float32)
drop = lambda x, n=None: started(lambda: fastdrop.dropout(x, 0.5, num_threads=n))
print(drop(small), drop(large, 1), end=" ")
with threadpool_limits(1):
    print(drop(large), end=" ")
fastdrop.set_num_threads(1)
print(drop(large), end=" ")
fastdrop.set_num_threads(3)
print(drop(large), drop(small, 4))
"""


@OPENMP
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="no /proc")
def test_threads_are_started_where_they_should_be():
    result = run(THREADS_STARTED, OMP_NUM_THREADS="3", OPENBLAS_NUM_THREADS="1")
    # none for small arrays or where limited to one; then two beside the main one, then one more
    assert result.stdout.split() == ["0", "0", "0", "0", "2", "1"], result.stderr


def checksum(_=None):
    return fastdrop.dropout(LARGE, key=KEY, num_threads=2).sum(dtype=np.float64)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_and_its_child_work():
    expected = checksum()  # the parent's threads have run
    child = os.fork()
    if child == 0:
        ok = checksum() == expected
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if checksum() == expected else 1)
        ok = ok and status_of(grandchild) == 0
        os._exit(0 if ok else 1)
    assert status_of(child) == 0
    assert checksum() == expected


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_process_pools(method):
    expected = checksum()
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(checksum, range(4)).get(timeout=60) == [expected] * 4


@OPENMP
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity to be bound by")
@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "GOMP_CPU_AFFINITY"])
def test_bound_threads_leave_numpys_and_the_trainers_free(name):
    cpus = sorted(os.sched_getaffinity(0))
    value = "true" if name == "OMP_PROC_BIND" else ",".join(map(str, cpus))
    code = "import os, fastdrop; print(fastdrop.get_num_threads(), sorted(os.sched_getaffinity(0)))"
    threads = run(code).stdout.split()[0]
    done = run(code, **{name: value})
    assert done.stdout.strip() == f"{threads} {cpus}", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 elsewhere")
def test_a_mapped_file_may_have_any_name(tmp_path):
    path = os.fsencode(tmp_path) + b"/m\xfc.bin"
    with open(path, "wb") as file:
        file.write(b"?")
    code = (
        f"import mmap; file = open({path!r}, 'rb');"
        "kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); import fastdrop; print('there')"
    )
    done = run(code)
    assert done.stdout == "there\n", done.stderr


CPU_TIME = """
import os, time, numpy as np, fastdrop
x = np.ones(5 << 20, np.float32)
for _ in range(3):
    fastdrop.dropout(x, num_threads=2)
before = time.process_time()
time.sleep(0.25)
print(time.process_time() - before)
"""


@OPENMP
def test_threads_sleep_between_calls():
    done = run(CPU_TIME, OPENBLAS_NUM_THREADS="1")
    assert float(done.stdout) < 0.1, done.stderr


MATRIX = np.arange(300_000.0).reshape(300, 1000)
SOME, OTHERS = np.array([299, 0, 7, 7, 120] * 20), np.arange(100)


def ahead_of(matrix, rows, out):
    """These rows, which are being copied."""
    ahead = _train.rows_ahead(matrix, rows, out)
    if ahead is None:
        pytest.skip("one CPU, or OpenMP allows one thread")
    return ahead


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [2, 5])
def test_rows_are_copied_ahead(dtype, threads):
    fastdrop.set_num_threads(threads)
    matrix = MATRIX.astype(dtype)
    for between in (lambda: None, lambda: _train.submatrix(matrix, OTHERS, None, matrix[:100] + 1)):
        rows, out = SOME.copy(), np.empty((len(SOME), 1000), dtype)
        ahead = ahead_of(matrix, rows, out)
        rows[:] = -1  # they have been copied
        between()
        assert ahead.finish() is out
        np.testing.assert_array_equal(out, matrix[SOME])


@pytest.mark.usefixtures("restore_threads")
def test_who_copies_ahead():
    out, other = np.empty((100, 1000)), np.empty((100, 1000))
    fastdrop.set_num_threads(1)
    assert _train.rows_ahead(MATRIX, SOME, out) is None
    fastdrop.set_num_threads(2)
    assert _train.rows_ahead(MATRIX[:5], OTHERS[:5], out[:5]) is None  # is little
    ahead = ahead_of(MATRIX, SOME, out)
    assert _train.rows_ahead(MATRIX, OTHERS, other) is None  # comes second
    ahead.finish()
    second = ahead_of(MATRIX, OTHERS, other)
    ahead.finish()  # has nothing to do with the second one
    del second  # without `finish`, as after an interrupt: nobody writes any more
    np.testing.assert_array_equal(other, MATRIX[OTHERS])
    assert ahead_of(MATRIX, SOME, out).finish() is out


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_finishes_what_its_parent_has_begun():
    fastdrop.set_num_threads(2)
    out = np.zeros((100, 1000))
    _train.submatrix(MATRIX, OTHERS, None, out)  # its helper spins for a while
    ahead = ahead_of(MATRIX, SOME, out)
    in_child = forked(lambda: (ahead.finish() == MATRIX[SOME]).all())
    assert in_child
    np.testing.assert_array_equal(ahead.finish(), MATRIX[SOME])
