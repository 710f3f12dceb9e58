"""The machine's name and its folder among results."""

import json

import pytest

from fastdrop.commands.bench.machine import MACHINE, machine, name_of, results_folder

EPYC, XEON = "AMD EPYC 9B14 96-Core Processor", "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"


@pytest.mark.parametrize(
    ("cpu", "vendor", "family", "model", "name"),
    [
        ("AMD EPYC", "AuthenticAMD", 25, 17, "amd-epyc-zen4"),
        (EPYC, "AuthenticAMD", 25, 160, "amd-epyc-zen4"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "AuthenticAMD", 25, 97, "amd-ryzen-zen4"),
        ("AMD EPYC", "AuthenticAMD", 26, 2, "amd-epyc-zen5"),
        ("AMD EPYC 7763 64-Core Processor", "AuthenticAMD", 25, 1, "amd-epyc-zen3"),
        ("AMD EPYC 7B12", "AuthenticAMD", 23, 49, "amd-epyc-zen2"),
        (XEON, "GenuineIntel", 6, 143, "intel-sapphire-rapids"),
        ("Intel(R) Core(TM) X", "GenuineIntel", 6, 999, "intel-core-x-family-6-model-999"),
        ("/odd\nname", "Odd", None, None, "odd-name"),
    ],
)
def test_names(cpu, vendor, family, model, name):
    found = {"cpu": cpu, "vendor": vendor, "family": family, "model": model}
    assert name_of({field: value for field, value in found.items() if value is not None}) == name


def test_results_go_where_the_user_says(tmp_path):
    (tmp_path / "other").mkdir()
    assert results_folder(tmp_path) == tmp_path
    assert results_folder(tmp_path / "new") == tmp_path / "new"
    assert not list(tmp_path.rglob(MACHINE))


def test_results_go_to_this_machine_where_machines_have_folders(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MACHINE).write_text("{}")
    for _ in range(2):
        folder = results_folder(tmp_path)
        assert folder == tmp_path / name_of(machine())
        assert json.loads((folder / MACHINE).read_text()) == machine()
    assert (tmp_path / "other" / MACHINE).read_text() == "{}"
    assert results_folder(folder) == folder
