"""Instruction sets, show_config, and the package as it is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run

import fastdrop
from fastdrop import _config
from fastdrop.compiled import _core


def test_use_isa_ends_with_its_block():
    before = _core.active_isa()
    with fastdrop.use_isa("generic"):
        assert _core.active_isa() == "generic"
    assert _core.active_isa() == before
    with pytest.raises(KeyError), fastdrop.use_isa("generic"):
        raise KeyError
    assert _core.active_isa() == before


def test_use_isa_refuses_unknown_names():
    with pytest.raises(ValueError, match=r"isa: expected one of .*generic, got 'mmx'"):
        fastdrop.use_isa("mmx").__enter__()


@pytest.mark.parametrize("isa", fastdrop.available_isas())
def test_environment_chooses_the_isa(isa):
    result = run("from fastdrop.compiled import _core; print(_core.active_isa())", FASTDROP_ISA=isa)
    assert result.stdout.strip() == isa


def test_a_wrong_isa_in_the_environment():
    error = run("import fastdrop", FASTDROP_ISA="mmx").stderr.splitlines()[-1]
    available = ", ".join(fastdrop.available_isas())
    assert error == f"ValueError: FASTDROP_ISA: expected one of {available}, got 'mmx'"


def test_modules_come_when_they_are_asked_for():
    code = (
        "import sys, fastdrop; print('fastdrop.models' in sys.modules);"
        "fastdrop.layers.Dense(3); fastdrop.models.Sequential(); fastdrop.datasets.load_digits();"
        "assert fastdrop.Sequential is fastdrop.models.Sequential;"
        "assert fastdrop.Input is fastdrop.layers.Input;"
        "print('layers' in dir(fastdrop)); fastdrop.nonsense"
    )
    result = run(code)
    assert result.stdout.split() == ["False", "True"]
    assert "module 'fastdrop' has no attribute 'nonsense'" in result.stderr


def test_show_config(capsys):
    assert fastdrop.show_config() is None
    printed = capsys.readouterr().out
    config = fastdrop.show_config("dicts")
    for name, value in config.items():
        assert f"{name} " in printed
        assert str(value) in printed
    assert config["version"] == fastdrop.__version__
    assert config["isa"] in fastdrop.available_isas()
    with pytest.raises(ValueError, match="mode: expected"):
        fastdrop.show_config("json")


def test_an_unbuilt_checkout_says_how_to_build(tmp_path):
    package = Path(fastdrop.__file__).parent
    shutil.copytree(package, tmp_path / "fastdrop", ignore=shutil.ignore_patterns("*.so"))
    # without the finder of an editable install, which would find the built module elsewhere
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)];"
        "import fastdrop"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    error = result.stderr.splitlines()[-1]
    assert error.startswith("ImportError: fastdrop is not built: run 'pip install -e .' in ")


def test_of_a_large_cache_a_process_counts_on_16_mib_a_cpu(monkeypatch):
    monkeypatch.setattr(_config, "cpus", lambda: {0, 1})
    assert _config._cache_bytes() <= 32 << 20
    monkeypatch.setattr(_config, "cpus", lambda: {0})
    assert _config._cache_bytes() <= 16 << 20
