"""How all commands behave: what goes to which stream, exit statuses, near misses, help."""

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import termios

import pytest

import fastdrop
from fastdrop.commands import main as command_line
from fastdrop.commands.console import Console
from fastdrop.commands.main import COMMANDS, main

# a quick call of each command; {} is a folder with what it needs, which {out} is not
QUICK = {
    "train": "train --epochs 1 --hidden 4 --out {out}",
    "predict": "predict {}/model-with-dropout.safetensors {}/table.csv --out {out}/new.csv",
    "report": "report {} --out {out}/report.html",
    "masks": "masks --shape 8x8 --key 1",
    "bench": "bench --sizes 1Ki --p 0.5 --rounds 1 --threads 1 --out {out}",
    "info": "info",
    "completion": "completion bash",
}
NEEDED = {"predict": ["pyarrow"], "report": ["pyarrow", "jinja2", "PIL"], "completion": ["shtab"]}


def parser():
    return command_line._parser()


def commands():
    return parser().parse_args([]).commands.choices


def status_of(*arguments):
    """Exit status of a command, also where argparse leaves."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a table, and what was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [f"{i},{'abc'[i % 3]},{i % 2}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["n,word,label", *rows]))
    words = ["train", "--data", folder / "table.csv", "--epochs", "1", "--hidden", "4"]
    assert main([*map(str, words), "--out", str(folder), "--force"]) == 0
    return folder


@pytest.fixture
def given(tmp_path, request, capsys):
    """What the words of a quick call are, with more behind them."""

    def words(name, *more):
        for package in NEEDED.get(name, ()):
            pytest.importorskip(package, reason=f"needs {package}")
        call = QUICK[name]
        folder = request.getfixturevalue("trained") if "{}" in call else ""
        capsys.readouterr()  # what that has printed
        return [*call.replace("{}", str(folder)).format(out=tmp_path).split(), *more]

    return words


@pytest.fixture(autouse=True)
def only_fastdrop(monkeypatch):
    """The frameworks, where installed, take too long to start for a test."""
    from fastdrop.commands.bench import kernels

    monkeypatch.setattr(kernels, "LIBRARIES", {"fastdrop": kernels.LIBRARIES["fastdrop"]})


# Help


def test_every_command_is_listed():
    assert len(commands()) == len(COMMANDS)
    assert set(QUICK) == set(commands())
    for name in commands():
        assert re.search(rf"^    {name}\b", parser().format_help(), re.MULTILINE)


@pytest.mark.parametrize("name", commands())
def test_help_has_two_examples_that_can_be_typed(name):
    examples = re.findall(r"^  fastdrop (.*)$", commands()[name].format_help(), re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(re.split("[<>|]", example)[0])
        assert parser().parse_args(words).command == name


def test_version_says_what_a_report_needs(capsys):
    assert status_of("--version") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"fastdrop {fastdrop.__version__}"
    for word in (sys.version.split()[0], "NumPy", "CPU", fastdrop.show_config("dicts")["isa"]):
        assert word in printed
    assert len(printed.splitlines()) == 3


# Near misses

MISSES = {
    "command": (["trian"], "got 'trian'; did you mean train?"),
    "option": (["train", "--optimiser", "adam"], "unknown option --optimiser; did you mean --opt"),
    "option with =": (["train", "--epoch=3"], "unknown option --epoch; did you mean --epochs?"),
    "abbreviation": (["bench", "--round", "3"], "unknown option --round; did you mean --rounds?"),
    "choice": (["train", "--optimizer", "adma"], "got 'adma'; did you mean adam?"),
    "capitals": (["train", "--optimizer", "Adam"], "got 'Adam'; did you mean adam?"),
    "item of a list": (["bench", "--dtypes", "float32,flaot16"], "got 'flaot16'; did you mean fl"),
    "group": (["bench", "--groups", "dropuot"], "got 'dropuot'; did you mean dropout?"),
    "shell": (["completion", "bsh"], "got 'bsh'; did you mean bash?"),
    "option of the line": (["--verison"], "unknown option --verison; did you mean --version?"),
    "nothing near": (["train", "--zzz"], r"unknown option --zzz$"),
    "no option": (["info", "more"], r"unknown argument more$"),
    "no command": ([], r"expected a command; fastdrop --help lists them$"),
}


@pytest.mark.parametrize(("arguments", "message"), MISSES.values(), ids=list(MISSES))
def test_near_misses(capsys, arguments, message):
    assert status_of(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert re.search(message, line) or message in line
    assert line.startswith("fastdrop")
    assert len(line) <= 200


# Streams


@pytest.mark.parametrize("name", ["train", "bench"])
def test_standard_output_is_no_folder(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert status_of(name, "--out", "-") == 2
    assert "--out: expected a folder, got -, standard output" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", QUICK)
def test_json_is_all_of_standard_output(given, capsys, name):
    assert status_of(*given(name, "--json")) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", QUICK)
def test_quiet_leaves_the_results(given, capsys, name):
    assert status_of(*given(name, "--quiet")) == 0
    printed = capsys.readouterr()
    assert printed.out
    assert printed.err == ""


@pytest.mark.parametrize("name", QUICK)
def test_a_log_has_no_bar_and_no_colour(given, capsys, name):
    assert status_of(*given(name)) == 0
    printed = capsys.readouterr()
    assert not re.search(r"[\r\x1b]|it/s|step/s", printed.out + printed.err)


def on_a_terminal(arguments, **environment):
    """Exit status of a process, and what the terminal got that it runs on."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    command = [sys.executable, "-m", "fastdrop", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    env |= {"TERM": "xterm"} | environment
    process = subprocess.Popen(command, stdout=child, stderr=child, stdin=child, env=env)
    os.close(child)
    seen = b""
    try:
        while part := os.read(parent, 4096):
            seen += part
    except OSError:  # the terminal has no other end any longer
        pass
    os.close(parent)
    return process.wait(60), seen.decode()


@pytest.mark.parametrize(
    ("environment", "options", "bold", "bar"),
    [
        ({}, [], True, True),
        ({"NO_COLOR": "1"}, [], False, True),
        ({"NO_COLOR": ""}, [], True, True),  # empty is not set, says no-color.org
        ({"TERM": "dumb"}, [], False, False),
        ({}, ["--quiet"], True, False),
        ({}, ["--quiet", "--json"], False, False),
    ],
)
def test_colour_and_bars_on_a_terminal(given, environment, options, bold, bar):
    status, seen = on_a_terminal(given("train", *options), **environment)
    assert status == 0, seen
    assert ("\x1b[1m" in seen) == bold
    assert ("step/s" in seen or "epoch 1/1" in seen) == bar
    if "--json" in options:
        assert json.loads(seen)


# Exit statuses


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("p: expected more"), 2, "error: p: expected more"),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'"),
        (MemoryError("all of it"), 2, "error: out of memory: all of it"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            KeyError("x"),
            1,
            "a fault of fastdrop's own: KeyError: 'x'; please report it, with fastdrop --version "
            "and FASTDROP_TRACEBACK=1",
        ),
        (AssertionError("a\nb" * 300), 1, "a fault of fastdrop's own: AssertionError: a b"),
    ],
)
@pytest.mark.parametrize("traceback", [False, True])
def test_exit_statuses(monkeypatch, given, capsys, name, error, status, line, traceback):
    def fail(arguments):
        raise error

    made = command_line._parser

    def failing():
        parser = made()
        parser.parse_args([]).commands.choices[name].set_defaults(run=fail)
        return parser

    monkeypatch.setattr(command_line, "_parser", failing)
    monkeypatch.setenv("FASTDROP_TRACEBACK", "1" if traceback else "")
    assert status_of(*given(name)) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith(f"fastdrop {name}: {line}")
    assert ("Traceback" in printed.err) == (traceback and status == 1)
    if not traceback:
        assert printed.err.count("\n") == 1
        assert len(printed.err) <= 201


def run(arguments, **streams):
    command = [sys.executable, "-m", "fastdrop", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, check=False, timeout=60, **streams)


TOLD = {"help": ["--help"], "version": ["--version"], "help of a command": ["train", "--help"]}
CALLS = [*TOLD, *(name for name in QUICK if name != "bench")]  # its other libraries would start


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_pipe_is_no_error(given, name):
    reading, writing = os.pipe()
    os.close(reading)
    done = run(TOLD.get(name) or given(name, "--quiet"), stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("name", CALLS)
def test_a_full_disk_is_said(given, name):
    with open("/dev/full", "wb") as full:
        done = run(TOLD.get(name) or given(name, "--quiet"), stdout=full)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert re.match(r"fastdrop.*: error: .*No space left on device", line)


def test_nobody_listens_to_standard_error(given):
    """Training goes on: results are what it is for."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fastdrop", *given("train")]
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=writing, check=False, timeout=60
    )
    os.close(writing)
    assert done.returncode == 0
    assert b"Dropout with p = 0.5" in done.stdout


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path, capsys, shell):
    pytest.importorskip("shtab", reason="needs shtab")
    assert status_of("completion", shell) == 0
    script = capsys.readouterr().out
    for word in (*commands(), "optimizer", "resume", "adamw"):
        assert word in script
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        done = subprocess.run([shell, "-n", path], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fastdrop", "tr"], "train"),
        (["fastdrop", "train", "--opt"], "--optimizer"),
        (["fastdrop", "train", "--optimizer", "adamw"], "adamw"),
    ],
)
def test_what_bash_completes(capsys, words, expected):
    pytest.importorskip("shtab", reason="needs shtab")
    assert status_of("completion", "bash") == 0
    script = capsys.readouterr().out
    function = re.search(r"^complete .*-F (\S+)", script, re.MULTILINE)[1]
    line = " ".join(map(shlex.quote, words))
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; {function}; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=False
    )
    assert expected in done.stdout.split(), done.stderr


def test_completion_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert status_of("completion", "bash") == 2
    assert "pip install 'fastdrop-nn[completion]'" in capsys.readouterr().err


# The parts


def test_a_console_without_streams(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    console = Console()
    console.tell("far")
    console.error("wrong")
    console.result("text", {})
    assert not console.bars
    assert console.strong("a") == "a"
