"""What fastdrop.torch uses of PyTorch, although PyTorch does not promise to keep it."""

from __future__ import annotations

import torch

__all__ = ["IMPORTED", "REGISTERED", "first_missing"]

# Layers and functions need these names, so fastdrop.torch is not imported without them.
IMPORTED = (
    "_C._are_functorch_transforms_active",
    "_C._autograd._get_creation_meta",
    "_C._dispatch_tls_is_dispatch_key_included",
    "_C._dynamo.eval_frame._FrameAction",
    "_C._dynamo.eval_frame._FrameExecStrategy",
    "_C._dynamo.eval_frame.set_code_exec_strategy",
    "_C._functorch.is_legacy_batchedtensor",
    "_C._is_tracing",
    "_C._len_torch_dispatch_stack",
    "autograd.forward_ad._current_level",
)
REGISTERED = (  # what `enable` needs to register kernels
    "_C._FunctionBase",
    "_C._autograd._top_saved_tensors_default_hooks",
    "_C._current_graph_task_id",
    "_C._dispatch_dump_table",
    "_C._dispatch_has_kernel_for_dispatch_key",
    "_C._dispatch_tls_is_dispatch_key_excluded",
    "_C._is_fwd_grad_enabled",
    "library.Library",
    "library._impls",
    *(f"ops.aten.{name}dropout" for name in ("", "feature_", "alpha_", "feature_alpha_")),
    "ops.aten.dropout.default._dispatch_cache",
    "ops.aten.dropout.default._op_dk",
    "ops.aten.dropout.default.decompose",
    "ops.aten.native_dropout.default",
    "ops.aten.scaled_dot_product_attention.default",
    "ops.aten._unsafe_view.default",
    "_safe_softmax",
)


def first_missing(names: tuple[str, ...]) -> str | None:
    """Return the first of these names in torch that this PyTorch lacks.

    Parameters
    ----------
    names : tuple of str
        Names without the leading "torch.".

    Returns
    -------
    str or None
        The name with "torch." in front, or None if PyTorch has them all.
    """
    for name in names:
        place: object = torch
        for part in name.split("."):
            place = getattr(place, part, None)
        if place is None:
            return f"torch.{name}"
    return None
