"""Names that PyTorch and NumPy users look for in the package, each with what to write here instead.

Knows names and advice; computes nothing.
"""

from __future__ import annotations

from .errors import MissingNameError

_DTYPE = "cr.float32, cr.float64, cr.int64, cr.bool …"
_CPU = "nothing: tensors live in the memory of the CPU"

# name → what to write, as the end of "Use …".
ADVICE = {
    "cat": "cr.concat([…], axis=…)", "concatenate": "cr.concat([…], axis=…)", "hstack": "cr.concat([…], axis=1)",
    "vstack": "cr.concat([…], axis=0)", "split": "slices, as x[:2] and x[2:]", "chunk": "slices, as x[:2] and x[2:]",
    "unsqueeze": "cr.expand_dims(x, axis=…)", "permute": "cr.permute_dims(x, axes)",
    "transpose": "cr.permute_dims(x, axes), or cr.matrix_transpose(x)", "ravel": "cr.flatten(x)",
    "from_numpy": "cr.tensor(array)", "as_tensor": "cr.asarray(data)", "array": "cr.tensor(data)",
    "dot": "cr.vecdot(x, y), or cr.matmul(x, y)", "mm": "cr.matmul(x, y)", "bmm": "cr.matmul(x, y)",
    "einsum": "cr.tensordot(x, y, axes=…), or cr.matmul(x, y)", "softmax": "cr.functional.softmax(x, axis=…)",
    "log_softmax": "cr.functional.log_softmax(x, axis=…)", "logsumexp": "cr.functional.logsumexp(x, axis=…)",
    "softplus": "cr.functional.softplus(x)", "cumsum": "cr.cumulative_sum(x, axis=…)",
    "cumprod": "cr.cumulative_prod(x, axis=…)", "norm": "cr.sqrt(cr.sum(x * x))", "clamp": "cr.clip(x, low, high)",
    "power": "cr.pow(x, y)", "true_divide": "cr.divide(x, y)", "mul": "cr.multiply(x, y)", "sub": "cr.subtract(x, y)",
    "div": "cr.divide(x, y)", "neg": "cr.negative(x)", "eq": "cr.equal(x, y)", "gt": "cr.greater(x, y)",
    "lt": "cr.less(x, y)", "arccos": "cr.acos(x)", "arcsin": "cr.asin(x)", "arctan": "cr.atan(x)",
    "absolute": "cr.abs(x)", "amax": "cr.max(x, axis=…)", "amin": "cr.min(x, axis=…)",
    "gather": "cr.take_along_axis(x, indices, axis=…)", "index_select": "cr.take(x, indices, axis=…)",
    "unique": "cr.unique_values(x)", "seed": "cr.manual_seed(seed)", "normal": "cr.randn(shape)",
    "float": _DTYPE, "double": _DTYPE, "long": _DTYPE, "int": _DTYPE, "half": _DTYPE, "float16": _DTYPE,
    "bfloat16": _DTYPE, "dtype": _DTYPE, "device": _CPU, "cuda": _CPU, "autograd": "cr.grad, cr.vjp or backward()",
    "inference_mode": "cr.no_grad()", "set_grad_enabled": "cr.no_grad() or cr.enable_grad()", "jit": "cr.compile",
    "F": "cr.functional", "utils": "nothing: arrays are enough for cr.fit",
}  # fmt: skip


def missing(name: str) -> MissingNameError:
    """The error for a name that the package lacks; with advice if it is one of those that people look for."""
    advice = ADVICE.get(name)
    return MissingNameError(
        f"chainrule has no {name!r}. {f'Use {advice}' if advice else 'See dir(chainrule)'}"
    )
