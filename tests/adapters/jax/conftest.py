"""Four devices of the CPU, for tests of arrays that lie on several."""

from importlib.util import find_spec

if find_spec("jax"):
    import jax

    jax.config.update("jax_num_cpu_devices", 4)  # before anything asks JAX for its devices
