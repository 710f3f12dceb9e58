"""The command line until it runs: Ctrl-C while modules are imported, and a wrong environment."""

import os
import signal
import subprocess
import sys
import time

import pytest

# what pip writes into bin/fastdrop, and the module
SCRIPT = ["-c", "import sys; from _fastdrop_command import main; sys.exit(main())"]
STARTS = [pytest.param(SCRIPT, id="script"), pytest.param(["-m", "fastdrop"], id="module")]

# Python imports this file first of all. It does something as soon as a module is looked for.
HOOK = """
import os, signal, sys, time

class Hook:
    def find_spec(name, path=None, target=None):
        if name == {name!r}:
            {action}

sys.meta_path.insert(0, Hook)
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"


def start(folder, arguments, hook="", **environment):
    (folder / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    names = ("FASTDROP_ISA", "FASTDROP_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=env | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    """Exit status, and what it wrote on standard error."""
    return process.wait(60), process.communicate()[1]


@pytest.mark.parametrize("isa", ["", "mmx"])
@pytest.mark.parametrize("arguments", STARTS)
@pytest.mark.parametrize(
    "module", ["numpy", "numpy.linalg", "fastdrop._config", "fastdrop.compiled._core"]
)
def test_interrupted_while_the_package_is_imported(tmp_path, arguments, module, isa):
    hook = HOOK.format(name=module, action=INTERRUPT)
    process = start(tmp_path, [*arguments, "info"], hook, FASTDROP_ISA=isa)
    assert end(process) == (130, "fastdrop: interrupted\n")


@pytest.mark.parametrize("arguments", STARTS)
@pytest.mark.parametrize("module", ["argparse", "fastdrop.commands.bench.torch", "fastdrop.models"])
def test_interrupted_while_commands_are_imported(tmp_path, arguments, module):
    hook = HOOK.format(name=module, action=INTERRUPT)
    assert end(start(tmp_path, [*arguments, "info"], hook)) == (130, "fastdrop: interrupted\n")


# A module may take an exception for a failed import of something optional.
@pytest.mark.parametrize("arguments", STARTS)
def test_no_module_keeps_an_interruption_for_itself(tmp_path, arguments):
    action = "exec('try:\\n    {0}\\n    time.sleep(5)\\nexcept BaseException:\\n    pass')"
    hook = HOOK.format(name="fastdrop.models", action=action.format(INTERRUPT))
    assert end(start(tmp_path, [*arguments, "info"], hook)) == (130, "fastdrop: interrupted\n")


@pytest.mark.parametrize("arguments", STARTS)
def test_interrupted_in_a_slow_import(tmp_path, arguments):
    action = f"open({str(tmp_path / 'there')!r}, 'w').close(); time.sleep(30)"
    process = start(tmp_path, [*arguments, "info"], HOOK.format(name="numpy", action=action))
    while not (tmp_path / "there").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "fastdrop: interrupted\n")


@pytest.mark.parametrize("arguments", STARTS)
def test_interrupted_while_a_command_imports(tmp_path, arguments):
    pytest.importorskip("matplotlib")
    hook = HOOK.format(name="matplotlib.axes", action=INTERRUPT)
    command = ["train", "--epochs", "1", "--hidden", "4", "--out", str(tmp_path)]
    status, error = end(start(tmp_path, [*arguments, *command], hook))
    assert status == 130
    assert error.splitlines()[-1].startswith("fastdrop train: interrupted; go on with --resume")


@pytest.mark.parametrize("arguments", STARTS)
def test_an_ignored_signal_stays_ignored(tmp_path, arguments):
    hook = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    hook += HOOK.format(name="numpy", action=INTERRUPT)
    assert end(start(tmp_path, [*arguments, "info"], hook)) == (0, "")


@pytest.mark.parametrize("arguments", STARTS)
def test_a_wrong_environment(tmp_path, arguments):
    status, error = end(start(tmp_path, [*arguments, "info"], FASTDROP_ISA="mmx"))
    assert status == 2
    assert error.startswith("fastdrop: error: FASTDROP_ISA: expected one of ")
    assert error.count("\n") == 1


def test_other_programs_keep_their_signals_and_tracebacks(tmp_path):
    code = "import fastdrop, signal; assert signal.getsignal(2) is signal.default_int_handler; 1/0"
    (tmp_path / "fastdrop").write_text(code)  # even one of our name
    status, error = end(start(tmp_path, ["-P", str(tmp_path / "fastdrop")]))
    assert status == 1
    assert error.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", STARTS)
def test_interrupted_at_any_moment(tmp_path, arguments):
    # from the second file of ours on; before, there is only Python
    seen = tmp_path / "there"
    hook = HOOK.format(name="fastdrop._namesake", action=f"open({str(seen)!r}, 'w').close()")
    for moment in range(25):
        seen.unlink(missing_ok=True)
        process = start(tmp_path, [*arguments, "info"], hook)
        while not seen.exists():
            assert process.poll() is None
        time.sleep(0.01 * moment)
        process.send_signal(signal.SIGINT)
        status, error = end(process)
        if status == 130:
            assert error in ("fastdrop: interrupted\n", "fastdrop info: interrupted\n")
        else:  # it was done, or Python was ending
            assert status in (0, -signal.SIGINT)
            assert error == ""
