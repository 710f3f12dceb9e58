"""XLA's interface of foreign functions: our declarations, versions, what the handler refuses."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

from places import ROOT

import fastdrop.jax as fjax
from fastdrop.compiled import _core
from fastdrop.jax import handler

XLA_H = ROOT / "fastdrop" / "compiled" / "xla.h"
HEADER = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")

# ours, theirs, fields: ours, and theirs where the name is another
STRUCTS = {
    "fd_xla_extension": ("XLA_FFI_Extension_Base", ["struct_size", "type", "next"]),
    "fd_xla_version": (
        "XLA_FFI_Api_Version",
        ["struct_size", "extension_start", "major_version", "minor_version"],
    ),
    "fd_xla_metadata": ("XLA_FFI_Metadata", ["struct_size", "api_version", "traits"]),
    "fd_xla_metadata_extension": ("XLA_FFI_Metadata_Extension", ["extension_base", "metadata"]),
    "fd_xla_error_create": (
        "XLA_FFI_Error_Create_Args",
        ["struct_size", "extension_start", "message", "errc"],
    ),
    "fd_xla_schedule": (
        "XLA_FFI_ThreadPool_Schedule_Args",
        ["struct_size", "extension_start", "ctx", "task", "data"],
    ),
    "fd_xla_num_threads": (
        "XLA_FFI_ThreadPool_NumThreads_Args",
        ["struct_size", "extension_start", "ctx", "num_threads"],
    ),
    "fd_xla_api": (
        "XLA_FFI_Api",
        [
            "struct_size",
            "api_version",
            "internal_api",
            "error_create:XLA_FFI_Error_Create",
            "schedule:XLA_FFI_ThreadPool_Schedule",
            "num_threads:XLA_FFI_ThreadPool_NumThreads",
        ],
    ),
    "fd_xla_buffer": (
        "XLA_FFI_Buffer",
        ["struct_size", "extension_start", "dtype", "data", "rank", "dims"],
    ),
    "fd_xla_scalar": ("XLA_FFI_Scalar", ["dtype", "value"]),
    "fd_xla_array": ("XLA_FFI_Array", ["dtype", "size", "data"]),
    "fd_xla_span": ("XLA_FFI_ByteSpan", ["ptr", "len"]),
    "fd_xla_args": ("XLA_FFI_Args", ["struct_size", "extension_start", "size", "types", "args"]),
    "fd_xla_attrs": ("XLA_FFI_Attrs", ["size", "types", "names", "attrs"]),
    "fd_xla_call_frame": (
        "XLA_FFI_CallFrame",
        ["struct_size", "extension_start", "api", "ctx", "stage", "args", "rets", "attrs"],
    ),
}
NUMBERS = {
    "FD_XLA_U32": "XLA_FFI_DataType_U32",
    "FD_XLA_S64": "XLA_FFI_DataType_S64",
    "FD_XLA_F16": "XLA_FFI_DataType_F16",
    "FD_XLA_F32": "XLA_FFI_DataType_F32",
    "FD_XLA_F64": "XLA_FFI_DataType_F64",
    "FD_XLA_BF16": "XLA_FFI_DataType_BF16",
    "FD_XLA_METADATA": "XLA_FFI_Extension_Metadata",
    "FD_XLA_EXECUTE": "XLA_FFI_ExecutionStage_EXECUTE",
    "FD_XLA_BUFFER": "XLA_FFI_ArgType_BUFFER",
    "FD_XLA_ARRAY": "XLA_FFI_AttrType_ARRAY",
    "FD_XLA_SCALAR": "XLA_FFI_AttrType_SCALAR",
    "FD_XLA_INVALID_ARGUMENT": "XLA_FFI_Error_Code_INVALID_ARGUMENT",
    "FD_XLA_RESOURCE_EXHAUSTED": "XLA_FFI_Error_Code_RESOURCE_EXHAUSTED",
}


@pytest.mark.skipif(not XLA_H.exists(), reason="not in a checkout")
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_our_declarations_are_jaxlibs(tmp_path):
    lines = ["#include <c_api.h>", '#include "xla.h"']

    def same(ours, theirs, what):
        lines.append(f'_Static_assert({ours} == {theirs}, "{what}");')

    for ours, (theirs, fields) in STRUCTS.items():
        for field in fields:
            own, _, other = field.partition(":")
            other = other or own
            same(f"offsetof({ours}, {own})", f"offsetof({theirs}, {other})", f"{theirs}.{other}")
            sizes = f"sizeof((({ours} *)0)->{own})", f"sizeof((({theirs} *)0)->{other})"
            if (theirs, other) != ("XLA_FFI_Metadata_Extension", "metadata"):
                same(*sizes, f"size of {theirs}.{other}")
    # of these we make our own
    for ours in ("fd_xla_error_create", "fd_xla_schedule", "fd_xla_num_threads"):
        same(f"sizeof({ours})", f"sizeof({STRUCTS[ours][0]})", f"size of {ours}")
    for ours, theirs in NUMBERS.items():
        same(f"(int){ours}", f"(int){theirs}", theirs)
    declaration = r"^} (fd_xla_\w+);|^typedef struct (fd_xla_\w+) {"
    declared = set(re.findall(declaration, XLA_H.read_text(), re.MULTILINE))
    names = {name for pair in declared for name in pair if name}
    assert names == {*STRUCTS, "fd_xla_type", "fd_xla_settings"}
    text = "\n".join(lines) + "\n"
    if "XLA_FFI_InternalExtension" in HEADER.read_text():  # its name since 0.5
        text = text.replace("XLA_FFI_Extension_Base", "XLA_FFI_InternalExtension")
        text = text.replace("XLA_FFI_Extension_Metadata", "XLA_FFI_InternalExtension_Metadata")
    source = tmp_path / "same.c"
    source.write_text(text)
    folders = [f"-I{HEADER.parent}", f"-I{XLA_H.parent}"]
    subprocess.run(["cc", "-std=c11", "-fsyntax-only", *folders, str(source)], check=True)


def test_the_installed_version_was_compared():
    """A newer one may be fine: but look at what changed, then raise FD_XLA_MINOR in xla.h."""
    major, minor = map(int, handler._interface().split("."))
    assert major == 0
    assert minor <= 5


class Version(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("size", "extension")] + [
        (name, ctypes.c_int) for name in ("major", "minor")
    ]


class Api(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("size", "extension")] + [("version", Version)]


class Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version", Version), ("traits", ctypes.c_uint32)]


class Extension(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(Metadata)),
    ]


class Frame(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(Extension)),
        ("api", ctypes.POINTER(Api)),
        ("rest", ctypes.c_byte * 256),
    ]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [((0, 1), (0, 1)), ((0, 3), (0, 3)), ((0, 5), (0, 5)), ((0, 9), (0, 5)), ((1, 0), (0, 5))],
)
def test_the_version_that_xla_is_told(theirs, expected):
    """Never a newer one than it knows: that would break a user's whole CPU backend."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    call = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(pointer(_core.xla_handler(), None))
    metadata = Metadata(ctypes.sizeof(Metadata))
    extension = Extension(ctypes.sizeof(Extension), 1, None, ctypes.pointer(metadata))
    api = Api(ctypes.sizeof(Api), 0, Version(24, 0, *theirs))
    frame = Frame(0, ctypes.pointer(extension), ctypes.pointer(api))
    assert not call(ctypes.byref(frame))
    assert (metadata.version.major, metadata.version.minor) == expected


def test_registering_again_is_fine():
    fjax.register()
    handler.register.cache_clear()
    fjax.register()
    y = fjax.dropout(jax.random.key(1), np.ones(8, np.float32), 1.0)
    np.testing.assert_array_equal(y, np.zeros(8, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda patch: patch.setattr(handler, "_interface", lambda: "1.0"), "got 1.0"),
        (
            lambda patch: patch.setattr(jax.ffi, "register_ffi_target", refuse),
            "version \\(0.2\\) is incompatible",
        ),
    ],
)
def test_an_interface_that_does_not_fit(change, message, monkeypatch):
    handler.register.cache_clear()
    change(monkeypatch)
    with pytest.raises(ImportError, match=message) as error:
        fjax.register()
    assert str(error.value).startswith("fastdrop.jax needs a jaxlib with foreign functions")
    assert len(str(error.value)) <= 200
    assert "\n" not in str(error.value)
    handler.register.cache_clear()


def refuse(*arguments, **more):
    raise RuntimeError("XLA FFI handler's API\nversion (0.2) is incompatible with the framework's")


# ---- what no caller of ours does: the handler reads nothing that is not there --------------------


def call(x, key, offset, starts, *more, result=None, **attributes):
    fjax.register()
    fields = {"op": np.int64(0), "batch": np.int64(0), "strides": np.array([1], np.int64)}
    fields |= {name: np.float64(0.5) for name in ("p", "scale", "shift", "fill")} | attributes
    fields = {name: value for name, value in fields.items() if value is not None}
    result = jax.ShapeDtypeStruct(x.shape, x.dtype) if result is None else result
    step = jax.ffi.ffi_call("fastdrop", result)
    return np.asarray(jax.jit(lambda *args: step(*args, **fields))(x, key, offset, starts, *more))


X, WORDS, START = np.ones(8, np.float32), np.zeros(2, np.uint32), np.zeros(1, np.uint32)
ROWS = np.ones((3, 8), np.float32)
WRONG = {
    "op": ((X, WORDS, WORDS, START), {"op": np.int64(99)}),
    "op below": ((X, WORDS, WORDS, START), {"op": np.int64(-1)}),
    "kind of an attribute": ((X, WORDS, WORDS, START), {"p": np.float32(0.5)}),
    "kind of strides": ((X, WORDS, WORDS, START), {"strides": np.array([1], np.int32)}),
    "no scale": ((X, WORDS, WORDS, START), {"scale": None}),
    "integers": ((X.astype(np.int32), WORDS, WORDS, START), {}),
    "key": ((X, WORDS.astype(np.int32), WORDS, START), {}),
    "three words": ((X, np.zeros(3, np.uint32), WORDS, START), {}),
    "key, one axis less": ((ROWS, WORDS, WORDS, START), {"batch": np.int64(2)}),
    "keys": ((ROWS, np.zeros((2, 2), np.uint32), WORDS[None], START), {"batch": np.int64(1)}),
    "offset": ((X, WORDS, START, START), {}),
    "starts": ((ROWS, WORDS, WORDS, START), {"strides": np.array([8, 1])}),
    "strides": ((ROWS, WORDS, WORDS, WORDS), {}),
    "batch": ((X, WORDS, WORDS, START), {"batch": np.int64(2)}),
    "batch below": ((X, WORDS, WORDS, START), {"batch": np.int64(-1)}),
    "too many": ((X, WORDS, WORDS, START, START), {}),
    "no second": ((X, WORDS, WORDS, START), {"op": np.int64(1)}),
    "second": ((X, X[:4], WORDS, WORDS, START), {"op": np.int64(1)}),
    "bias": ((X, X[:4], WORDS, WORDS, START), {"op": np.int64(2)}),
    "p": ((X, WORDS, WORDS, START, WORDS), {"p": np.float64(-1)}),
    "result": ((X, WORDS, WORDS, START), {"result": jax.ShapeDtypeStruct((9,), np.float32)}),
    "result's dtype": ((X, WORDS, WORDS, START), {"result": jax.ShapeDtypeStruct((8,), np.int32)}),
    "shared normal variates": (
        (X, WORDS, WORDS, START),
        {"op": np.int64(_core.OPS["gaussian"]), "strides": np.array([0])},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_handler_refuses(name):
    arguments, attributes = WRONG[name]
    with pytest.raises(Exception, match="fastdrop: unexpected"):
        call(*arguments, **attributes)


def test_the_handler_takes():
    assert set(call(X, WORDS, WORDS, START)) <= {0.0, 0.5}
