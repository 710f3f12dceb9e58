"""All C and Cython. `_core`: masks and what is done with them; `_train`: a training step's parts.

kernels/ knows no Python; `_core.pyx` and `_train.pyx` check what Python gives them and call it.
"""
