"""Adapters are documented without the libraries that they adapt to, of which none has to be there.

Stand-ins take the libraries' places while the adapters are imported. That happens after the tutorials
have run, which use the libraries themselves.
"""

from importlib import import_module

from sphinx.ext.autodoc.mock import mock

LIBRARIES = ["equinox", "flax", "jax", "keras", "sklearn", "tensorflow", "torch"]
ADAPTERS = ["jax", "jax.equinox", "jax.linen", "jax.nnx", "keras", "sklearn", "torch"]


def import_adapters(app):
    with mock(LIBRARIES):
        jax, keras, sklearn = map(import_module, ("jax", "keras", "sklearn"))
        if not isinstance(jax.__version_info__, tuple):  # versions that the adapters take
            jax.__version_info__ = (99,)
        for library in (keras, sklearn):
            if not isinstance(library.__version__, str):
                library.__version__ = "99.0"
        if not isinstance(keras.backend.backend(), str):
            keras.backend.backend = lambda: "jax"
        for adapter in ADAPTERS:
            import_module(f"fastdrop.{adapter}")


def setup(app):
    app.connect("builder-inited", import_adapters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
