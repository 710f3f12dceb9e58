"""The compiled modules. Everything else about the package stands in pyproject.toml."""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def check_tools() -> None:
    """End in a line where Python or a tool is older than pyproject.toml asks.

    In an environment of its own pip installs what it asks; elsewhere nobody looks, and an older
    tool may build nothing, or something else, and leave old modules in their places.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 (pip looks at requires-python after this)
        sys.exit(f"fastdrop: needs Python 3.11 or later, got {sys.version.split()[0]}")
    import tomllib

    requires = tomllib.loads(Path("pyproject.toml").read_text())["build-system"]["requires"]
    wrong = []
    for requirement in requires:
        name, least = requirement.split(">=")
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        if release(found) < release(least):
            wrong.append(f"{requirement}, got {found or 'none'}")
    if wrong:
        advice = " ".join(f"'{requirement}'" for requirement in requires)
        sys.exit(f"fastdrop: building needs {'; '.join(wrong)}: pip install {advice}")


def release(number: str) -> list[int]:
    """Return 3, 1, 0 for 3.1.0rc2."""
    return [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", number)[0])]


check_tools()

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

STARTUP = "_fastdrop_startup.pth"


class BuildPy(build_py):
    """Also what Python reads at its start, into the folder of packages.

    No other setting puts a file there. Editable installs come without it.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(STARTUP, str(Path(self.build_lib, STARTUP)))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, STARTUP))]


class BuildExt(build_ext):
    """As many compilers at once as there are CPUs, or `-j` says: also within an extension."""

    def build_extensions(self) -> None:
        compile_in_turn = self.compiler.compile

        def compile_at_once(sources: list[str], **options: object) -> list[str]:
            parts = compilers.map(lambda source: compile_in_turn([source], **options), sources)
            return [made for part in parts for made in part]

        self.parallel = self.parallel or os.cpu_count()
        with ThreadPoolExecutor(self.parallel) as compilers:
            self.compiler.compile = compile_at_once
            super().build_extensions()


# A free-threaded interpreter has no limited API yet: it gets a build of its own.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

# Building for another machine: what comes out cannot be run here.
CROSS = "_PYTHON_HOST_PLATFORM" in os.environ

OPENMP_PROBE = r"""
#include <omp.h>
#include <stdio.h>
int main(void) {
    int n = 0;
    #pragma omp parallel num_threads(2) reduction(+:n)
    n += 1;
    printf("%d", n);
    return n > 0 ? 0 : 1;
}
"""


def openmp_flags() -> list[str]:
    """Flags that compile, link and run an OpenMP program; none where there are none."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "probe.c"), Path(folder, "probe")
        source.write_text(OPENMP_PROBE)
        try:
            subprocess.run(
                [*compiler, "-fopenmp", str(source), "-o", str(program)],
                check=True,
                capture_output=True,
            )
            if not CROSS:
                subprocess.run([str(program)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            print("fastdrop: no OpenMP here, building for one thread", file=sys.stderr)
            return []
    return ["-fopenmp"]


OPENMP = openmp_flags()

# name, sources
EXTENSIONS = [
    (
        "fastdrop.compiled._core",
        [
            "fastdrop/compiled/_core.pyx",
            "fastdrop/compiled/pool.c",
            "fastdrop/compiled/tensorflow.c",
            "fastdrop/compiled/xla.c",
            "fastdrop/compiled/kernels/philox.c",
            "fastdrop/compiled/kernels/bits.c",
            "fastdrop/compiled/kernels/run.c",
            "fastdrop/compiled/kernels/blocks.c",
            "fastdrop/compiled/kernels/dispatch.c",
            "fastdrop/compiled/kernels/isa_generic.c",
            "fastdrop/compiled/kernels/isa_avx2.c",
            "fastdrop/compiled/kernels/isa_avx512.c",
            "fastdrop/compiled/kernels/isa_neon.c",
        ],
    ),
    (
        "fastdrop.compiled._train",  # its loops come with _core's table, its threads from there
        [
            "fastdrop/compiled/_train.pyx",
            "fastdrop/compiled/kernels/optimizers.c",
        ],
    ),
    (
        "fastdrop.compiled._attention",  # likewise
        [
            "fastdrop/compiled/_attention.pyx",
            "fastdrop/compiled/kernels/softmax.c",
            "fastdrop/compiled/kernels/attention.c",
        ],
    ),
    (
        "fastdrop.compiled._products",  # likewise
        ["fastdrop/compiled/_products.pyx", "fastdrop/compiled/kernels/products.c"],
    ),
    ("fastdrop.compiled._chain", ["fastdrop/compiled/_chain.pyx"]),
    ("fastdrop.compiled._losses", ["fastdrop/compiled/_losses.pyx"]),
    ("fastdrop.compiled._sparse", ["fastdrop/compiled/_sparse.pyx"]),
]

setup(
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    ext_modules=cythonize(
        [
            Extension(
                name,
                sources,
                libraries=["m"],
                include_dirs=["fastdrop/compiled", np.get_include()],
                depends=[str(p) for p in Path("fastdrop").rglob("*.h")],
                define_macros=[
                    ("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"),
                    ("NPY_TARGET_VERSION", "NPY_1_23_API_VERSION"),
                    *([("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else []),
                ],
                # contraction would make values depend on the instruction set
                extra_compile_args=[
                    "-std=c11",
                    "-O3",
                    "-ffp-contract=off",
                    "-Wall",
                    "-Wextra",
                    "-pthread",
                    *OPENMP,
                ],
                extra_link_args=["-pthread", *OPENMP],
                py_limited_api=LIMITED_API,
            )
            for name, sources in EXTENSIONS
        ],
    ),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
