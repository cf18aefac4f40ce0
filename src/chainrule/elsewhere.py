"""Names and keywords that PyTorch and NumPy users look for, each with what to write here instead.

Calls that do not fit a function of this package are told in its words, not in Python's.
Knows names, signatures and advice; computes nothing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

from .errors import ArgumentError, MissingNameError

P = ParamSpec("P")
R = TypeVar("R")

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


# ------------------------------------------------------------------------------------------ keywords


class Keyword(NamedTuple):
    """A keyword of PyTorch's that is none here: what to write instead, and the values that ask for nothing."""

    advice: str
    harmless: tuple[Any, ...] = ()


_NOT_IN_PLACE = Keyword("Nothing is computed in place: leave it out and use the result", (False,))
_ONE_WAY = Keyword("There is one implementation of each update: leave it out", (None, False))

#: A harmless value says what is so anyway (`device="cpu"`, `inplace=False`, `foreach=None`): it is accepted and
#: dropped, so that code written for PyTorch runs. Any other value would change what happens there and would not
#: here, so it raises. The table is asked only about keywords that a function does not have itself.
KEYWORDS: Mapping[str, Keyword] = {
    "device": Keyword("Tensors live in the memory of the CPU: leave it out", (None, "cpu")),
    "dtype": Keyword("Convert with x.astype(dtype), or a module with .to(dtype)", (None,)),
    "inplace": _NOT_IN_PLACE,
    "out": Keyword("Nothing is written into given memory: use the result", (None,)),
    "layout": Keyword("Tensors are dense: leave it out", (None,)),
    "memory_format": Keyword("Tensors have no strides: leave it out", (None,)),
    "pin_memory": Keyword("Tensors live in the memory of the CPU: leave it out", (False,)),
    "non_blocking": Keyword("There is one device, so nothing is copied between any: leave it out", (False,)),
    "size_average": Keyword("Use reduction='mean' or reduction='sum'", (None,)),
    "reduce": Keyword(
        "Use reduction='none' for one loss each, reduction='mean' or 'sum' for one number", (None,)
    ),
    "_stacklevel": Keyword("Leave it out", (3,)),
    "foreach": _ONE_WAY,
    "fused": Keyword("Updates are fused by cr.compile: put opt.step() into a compiled step", (None, False)),
    "capturable": Keyword("Steps are captured by cr.compile: leave it out", (False,)),
    "differentiable": Keyword("Updates are not differentiated: write the update from operations", (False,)),
    "maximize": Keyword("Minimise the negative: (-loss).backward()", (False,)),
    "decoupled_weight_decay": Keyword("Use optim.AdamW", (False,)),
    "learning_rate": Keyword("Use lr=…"),
    "verbose": Keyword("Print scheduler.get_last_lr() where you want it", (None, False, "deprecated")),
    "sparse": Keyword("Gradients are dense: leave it out; every optimizer takes them", (False,)),
    "scale_grad_by_freq": Keyword(
        "Weigh the loss instead: gradients of a row add up over its occurrences", (False,)
    ),
    "max_norm": Keyword(
        "Looking up does not change the table: clip its rows after optimizer.step(), under cr.no_grad()",
        (None,),
    ),
    "norm_type": Keyword("It belongs to max_norm, which is not offered: leave it out", (2, 2.0)),
    "process_group": Keyword("There is one process: leave it out", (None,)),
    "num_workers": Keyword("Batches are cut from arrays in memory: leave it out", (0,)),
    "retain_graph": Keyword("A graph lives as long as somebody holds it: leave it out", (None, True, False)),
    "dim": Keyword("Use axis=…"),
    "keepdim": Keyword("Use keepdims=…"),
    "input": Keyword("Pass it first, without a name"),
    "other": Keyword("Pass it second, without a name"),
}


def fitted(
    function: Callable[..., Any], name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any]:
    """`keywords` without those that ask for nothing. ArgumentError says what does not fit the signature.

    arguments: all positional ones, `self` included where the function has one.
    """
    try:
        _signature(function).bind(*arguments, **keywords)
        return keywords
    except TypeError:
        own = _signature(function).parameters
        kept = {key: value for key, value in keywords.items() if key in own or not _asks_nothing(key, value)}
    try:
        _signature(function).bind(*arguments, **kept)
        return kept
    except TypeError as failure:
        raise ArgumentError(_misfit(function, name, arguments, kept, str(failure))) from None


_signature = functools.lru_cache(maxsize=None)(inspect.signature)


def _asks_nothing(key: str, value: Any) -> bool:
    known = KEYWORDS.get(key)
    return known is not None and any(
        value is one or (type(value) is type(one) and value == one) for one in known.harmless
    )


def _misfit(
    function: Callable[..., Any], name: str, arguments: tuple[Any, ...], keywords: dict[str, Any], fault: str
) -> str:
    """The rule, what was given, the fix."""
    parameters = dict(_signature(function).parameters)
    if "self" in parameters:
        del parameters["self"]
        arguments = arguments[1:]
    shown = ", ".join(str(one.replace(annotation=one.empty)) for one in parameters.values())
    rule = f"{name} takes ({shown})"
    unknown = next((key for key in keywords if key not in parameters), None)
    if unknown is not None:
        return f"{rule}; got {unknown}={_shortened(keywords[unknown])}. {_advice(unknown, parameters)}"
    places = [one for one in parameters.values() if one.kind is not one.KEYWORD_ONLY]
    if len(arguments) > len(places):
        return f"{rule}; got {len(arguments)} arguments without a name. Leave out the last, or name them"
    missing = [
        key
        for k, (key, one) in enumerate(parameters.items())
        if one.default is one.empty and key not in keywords and not (one in places and k < len(arguments))
    ]
    missing = [key for key in missing if parameters[key].kind not in (inspect.Parameter.VAR_POSITIONAL,
                                                                       inspect.Parameter.VAR_KEYWORD)]  # fmt: skip
    if missing:
        return f"{rule}; got no {', '.join(missing)}. Give {'it' if len(missing) == 1 else 'them'} too"
    return f"{rule}; {fault}. Give it once"


def _advice(unknown: str, parameters: Mapping[str, Any]) -> str:
    if unknown in KEYWORDS:
        return KEYWORDS[unknown].advice
    close = difflib.get_close_matches(unknown, parameters, n=1)
    if close:
        return f"Did you mean {close[0]}=?"
    return "Leave it out"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


def checked_call(function: Callable[P, R]) -> Callable[P, R]:
    """The function; a call that does not fit is told in words. Costs nothing as long as calls fit."""

    @functools.wraps(function)
    def called(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*arguments, **keywords)
        except TypeError:
            kept = explain_misfit(function, function.__name__, arguments, keywords)
            if kept is None:
                raise
        return function(*arguments, **kept)

    return called


def checked_constructor(kind: type) -> None:
    """Let calls of a class of this package that do not fit its `__init__` be told in its words.

    What users write themselves keeps Python's own errors.
    """
    made = vars(kind).get("__init__")
    if made is None or kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
        return

    @functools.wraps(made)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        made(self, *arguments, **fitted(made, kind.__name__, (self, *arguments), keywords))

    kind.__init__ = __init__  # type: ignore[misc]


def explain_misfit(
    function: Callable[..., Any], name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any] | None:
    """After a TypeError of `function`: keywords to try again with, or None if the call was not what failed."""
    kept = fitted(function, name, arguments, keywords)
    return None if kept is keywords else kept


# ------------------------------------------------------------------------------------ names of modules

MODULE_ADVICE = {
    "cpu": "Parameters live in the memory of the CPU: leave it out",
    "cuda": "Parameters live in the memory of the CPU: leave it out",
    "half": "Modules hold float32 or float64: leave it out",
    "bfloat16": "Modules hold float32 or float64: leave it out",
    "share_memory": "Threads share parameters already: leave it out",
    "register_backward_hook": "Use register_full_backward_hook",
    "compile": "Use cr.compile on the whole step",
    "set_extra_state": "Use register_buffer",
    "get_extra_state": "Use register_buffer",
}


def module_advice(name: str) -> str:
    """What to write for a method of PyTorch's modules that is none here; empty if it is none of those."""
    return f". {MODULE_ADVICE[name]}" if name in MODULE_ADVICE else ""


_OF_OPERATIONS = "nothing of the kind yet: write it as an nn.Module from the functions of cr"

# Layers of PyTorch's that are none here → what to write, as the end of "Use …"; "nothing" stands for itself.
LAYER_ADVICE = {
    "functional": "cr.functional", "F": "cr.functional",
    **dict.fromkeys(("BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"), "BatchNorm1d on x.reshape((N, C, -1))"),
    **dict.fromkeys(("GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "RMSNorm", "LocalResponseNorm"), "LayerNorm"),
    **dict.fromkeys(("Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"), "Dropout"),
    "EmbeddingBag": "Embedding, then .sum(axis=1) or .mean(axis=1)", "Unflatten": "x.reshape(…)",
    **dict.fromkeys(("ParameterList", "ParameterDict"), "one attribute for each Parameter, or register_parameter"),
    "Softmax2d": "Softmax(dim=1)", "LazyLinear": "Linear(in_features, out_features)",
    **dict.fromkeys(("DataParallel", "parallel"), "the model itself: there is one process"),
    **dict.fromkeys(
        ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "MaxPool1d", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d",
         "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "MultiheadAttention", "Transformer",
         "TransformerEncoder", "TransformerEncoderLayer", "Upsample", "Bilinear"), _OF_OPERATIONS,
    ),
}  # fmt: skip


def missing_layer(name: str) -> MissingNameError:
    """The error for a name that `nn` lacks; with advice if it is one of PyTorch's layers."""
    advice = LAYER_ADVICE.get(name)
    if advice is None:
        return MissingNameError(f"nn has no {name!r}. See dir(nn)")
    advice = f"There is {advice}" if advice.startswith("nothing") else f"Use {advice}"
    return MissingNameError(f"nn has no {name!r}. {advice}")
