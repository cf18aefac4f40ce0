"""Names and keywords that PyTorch and NumPy users look for, each with what to write here instead.

Calls that do not fit a function of this package are told in its words, not in Python's.
Knows names, signatures and advice; computes nothing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from .errors import ArgumentError, MissingNameError, NotAFunctionError

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
    "cumprod": "cr.cumulative_prod(x, axis=…)", "norm": "cr.linalg.vector_norm(x)", "clamp": "cr.clip(x, low, high)",
    "power": "cr.pow(x, y)", "true_divide": "cr.divide(x, y)", "mul": "cr.multiply(x, y)", "sub": "cr.subtract(x, y)",
    "div": "cr.divide(x, y)", "neg": "cr.negative(x)", "eq": "cr.equal(x, y)", "gt": "cr.greater(x, y)",
    "lt": "cr.less(x, y)", "arccos": "cr.acos(x)", "arcsin": "cr.asin(x)", "arctan": "cr.atan(x)",
    "absolute": "cr.abs(x)", "amax": "cr.max(x, axis=…)", "amin": "cr.min(x, axis=…)",
    "gather": "cr.take_along_axis(x, indices, axis=…)", "index_select": "cr.take(x, indices, axis=…)",
    "unique": "cr.unique_values(x)", "seed": "cr.manual_seed(seed)", "normal": "cr.randn(shape)",
    "float": _DTYPE, "double": _DTYPE, "long": _DTYPE, "int": _DTYPE, "half": _DTYPE, "float16": _DTYPE,
    "bfloat16": _DTYPE, "dtype": _DTYPE, "device": _CPU, "cuda": _CPU, "autograd": "cr.grad, cr.vjp or backward()",
    "inference_mode": "cr.no_grad()", "set_grad_enabled": "cr.no_grad() or cr.enable_grad()", "jit": "cr.compile",
    "topk": "cr.argsort(x, axis=…, descending=True)[..., :k]",
    "multinomial": "cr.argmax(logits - cr.log(-cr.log(cr.rand(logits.shape))), axis=-1): a draw from softmax(logits)",
    "autocast": "nothing: everything is computed in the dtype of its operands",
    "F": "cr.functional", "utils": "nothing: arrays are enough for cr.fit",
}  # fmt: skip


def missing(name: str) -> MissingNameError:
    """The error for a name that the package lacks; with advice if it is one of those that people look for."""
    advice = ADVICE.get(name)
    return MissingNameError(
        f"chainrule has no {name!r}. {f'Use {advice}' if advice else 'See dir(chainrule)'}"
    )


class _Room(ModuleType):
    """A module of the package: called as if it were a function it says what it is."""

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        name = self.__name__.partition(".")[2]
        advice = _OF_CALLED_ROOMS.get(name, f"See dir(chainrule.{name})")
        raise NotAFunctionError(f"chainrule.{name} is a room of the package, not a function. {advice}")


_OF_CALLED_ROOMS = {
    "trace": "Use x[k, k].sum() with k = cr.arange(n) for the sum of a diagonal, cr.compile(f).stages() for a graph",
    "compiler": "Use cr.compile(f)",
    "autodiff": "Use cr.grad(f), or backward()",
    "graph": "Use cr.compile(f).stages()['trace']",
    "data": "Use cr.data.DataLoader(…), or arrays as they are",
    "train": "Use cr.fit(model, data)",
    "testing": "Use cr.testing.check_grads(f, args)",
}


def become_room(value: object, package: str) -> None:
    """Let a module of the package say what it is when it is called; anything else stays as it is."""
    if type(value) is ModuleType and value.__name__.startswith(f"{package}."):
        value.__class__ = _Room


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
    "requires_grad": Keyword("Call .requires_grad_() on the result", (None, False)),
    "retain_graph": Keyword("A graph lives as long as somebody holds it: leave it out", (None, True, False)),
    "dim": Keyword("Use axis=…"),
    "keepdim": Keyword("Use keepdims=…"),
    "unbiased": Keyword("Use correction=1", (False,)),
    "add_bias_kv": Keyword("Add a row to key and value: cr.concat([key, row])", (False,)),
    "add_zero_attn": Keyword("Add a row of zeros to key and value: cr.concat([key, row])", (False,)),
    "proj_size": Keyword("Leave it out, and put an nn.Linear behind the net", (0,)),
    "enable_nested_tensor": Keyword("Sequences are padded: leave it out", (True, False)),
    "mask_check": Keyword("Leave it out", (True, False)),
    "enforce_sorted": Keyword("Sequences may come in any order: leave it out", (True, False)),
    "input": Keyword("Pass it first, without a name"),
    "other": Keyword("Pass it second, without a name"),
}


def fitted(
    function: Callable[..., Any],
    name: str,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    advice: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`keywords` without those that ask for nothing. ArgumentError says what does not fit the signature.

    arguments: all positional ones, `self` included where the function has one. advice: what to write in place of
    keywords that people look for in this function; it goes before that of `KEYWORDS`.
    """
    try:
        _signature(function).bind(*arguments, **keywords)
        return keywords
    except TypeError:
        own = _signature(function).parameters
        special = advice or {}
        kept = {
            key: value
            for key, value in keywords.items()
            if key in own or key in special or not _asks_nothing(key, value)
        }
    try:
        _signature(function).bind(*arguments, **kept)
        return kept
    except TypeError as failure:
        raise ArgumentError(_misfit(function, name, arguments, kept, str(failure), special)) from None


_signature = functools.lru_cache(maxsize=None)(inspect.signature)


def _asks_nothing(key: str, value: Any) -> bool:
    known = KEYWORDS.get(key)
    return known is not None and any(
        value is one or (type(value) is type(one) and value == one) for one in known.harmless
    )


def _misfit(
    function: Callable[..., Any],
    name: str,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    fault: str,
    advice: Mapping[str, str],
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
        hint = advice.get(unknown) or _advice(unknown, parameters)
        if len(shown) > _LONG:  # `fit` would fill the screen
            rule = f"{name} takes the arguments that help({name}) lists"
        return f"{rule}; got {unknown}={_shortened(keywords[unknown])}. {hint}"
    places = [one for one in parameters.values() if one.kind is not one.KEYWORD_ONLY]
    if len(arguments) > len(places):
        fix = (
            f"Make it first: {name}()(input, target)"
            if name.endswith("Loss")
            else "Leave out the last, or name them"
        )
        return f"{rule}; got {len(arguments)} arguments without a name. {fix}"
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


# Signatures longer than this are told without their defaults.
_LONG = 300


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


def checked_call(function: Callable[P, R], advice: Mapping[str, str] | None = None) -> Callable[P, R]:
    """The function; a call that does not fit is told in words, with `advice` for keywords of other packages."""

    @functools.wraps(function)
    def called(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*arguments, **keywords)
        except TypeError:
            kept = explain_misfit(function, function.__name__, arguments, keywords, advice)
            if kept is None:
                raise
        return function(*arguments, **kept)

    return called


def checked(advice: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: `checked_call` with this advice."""
    return lambda function: checked_call(function, advice)


def checked_constructor(kind: type) -> None:
    """Let calls of a class of this package that do not fit its `__init__` be told in its words.

    What users write themselves keeps Python's own errors.
    """
    made = vars(kind).get("__init__")
    if made is None or kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
        return

    @functools.wraps(made)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        name = type(self).__name__ if kind.__name__.startswith("_") else kind.__name__
        made(self, *arguments, **fitted(made, name, (self, *arguments), keywords))

    kind.__init__ = __init__  # type: ignore[misc]


def explain_misfit(
    function: Callable[..., Any],
    name: str,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    advice: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """After a TypeError of `function`: keywords to try again with, or None if the call was not what failed."""
    kept = fitted(function, name, arguments, keywords, advice)
    return None if kept is keywords else kept


def unfit_call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> str | None:
    """What a user's function takes, such as "(x, y)", if it cannot be called so; None if it can, or hides it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        return (
            f"({', '.join(str(one.replace(annotation=one.empty)) for one in signature.parameters.values())})"
        )
    return None


# Keywords of Keras and scikit-learn → what `fit` takes instead.
FIT_ADVICE = {
    **dict.fromkeys(("epoch", "max_epochs", "max_iter", "n_epochs", "num_epochs"), "Use epochs=…"),
    **dict.fromkeys(("verbose", "disp"), "Use progress=True, False or 'plain'"),
    **dict.fromkeys(("validation_split", "validation_fraction", "validation_data", "val_data", "test_size"),
                    "Use validation=: a share, or (X, y)"),
    **dict.fromkeys(("lr", "learning_rate", "learning_rate_init", "weight_decay", "momentum"),
                    "It belongs to the optimizer: optimizer=optim.Adam(model.parameters(), lr=…)"),
    **dict.fromkeys(("criterion", "loss_fn"), "Use loss=…"),
    **dict.fromkeys(("random_state", "shuffle"), "Rows are shuffled by seed=…; for another order give a DataLoader"),
    **dict.fromkeys(("early_stopping", "n_iter_no_change"), "Use patience=…, a number of epochs"),
    **dict.fromkeys(("gradient_clip_val", "max_grad_norm", "clipnorm"), "Use clip_norm=…"),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps"), "Use accumulate=…"),
    **dict.fromkeys(("lr_scheduler", "schedule"), "Use scheduler=…"),
    **dict.fromkeys(("augmentation", "transform", "transforms"), "Use augment=…, a change or a list of them"),
    **dict.fromkeys(("vocabulary", "vocab", "tokenizer"), "Use preparation=…, a cr.data.Vocabulary"),
    **dict.fromkeys(("checkpoint_dir", "output_dir", "default_root_dir"), "Use folder=…"),
}  # fmt: skip

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
    "flatten_parameters": "Weights are read where they lie: leave it out",
}


def module_advice(name: str) -> str:
    """What to write for a method of PyTorch's modules that is none here; empty if it is none of those."""
    return f". {MODULE_ADVICE[name]}" if name in MODULE_ADVICE else ""


_OF_OPERATIONS = "nothing of the kind yet: write it as an nn.Module from the functions of cr"

# Layers of PyTorch's that are none here → what to write, as the end of "Use …"; "nothing" stands for itself.
LAYER_ADVICE = {
    "functional": "cr.functional", "F": "cr.functional",
    "BatchNorm3d": "BatchNorm1d on x.reshape((N, C, -1))",
    "SyncBatchNorm": "BatchNorm1d or BatchNorm2d: there is one process",
    **dict.fromkeys(("InstanceNorm1d", "InstanceNorm2d"), "GroupNorm(channels, channels)"),
    "LocalResponseNorm": "GroupNorm",
    **dict.fromkeys(("AlphaDropout", "FeatureAlphaDropout"), "Dropout"),
    "EmbeddingBag": "Embedding, then .sum(axis=1) or .mean(axis=1)",
    **dict.fromkeys(("UpsamplingNearest2d", "UpsamplingBilinear2d"), "Upsample"),
    **dict.fromkeys(("ReflectionPad1d", "ReflectionPad2d", "ReplicationPad1d", "ReplicationPad2d", "CircularPad1d",
                     "CircularPad2d", "ConstantPad1d", "ConstantPad2d", "ZeroPad1d"), "functional.pad"),
    **dict.fromkeys(("LazyConv1d", "LazyConv2d"), "Conv1d or Conv2d with in_channels"),
    **dict.fromkeys(("ParameterList", "ParameterDict"), "one attribute for each Parameter, or register_parameter"),
    "Softmax2d": "Softmax(dim=1)", "LazyLinear": "Linear(in_features, out_features)",
    "PositionalEncoding": "SinusoidalPositions or LearnedPositions",
    **dict.fromkeys(("Transformer", "TransformerDecoder", "TransformerDecoderLayer"),
                    "MultiheadAttention, TransformerEncoderLayer and is_causal=True"),
    **dict.fromkeys(("DataParallel", "parallel"), "the model itself: there is one process"),
    **dict.fromkeys(
        ("MaxPool3d", "AvgPool3d", "Dropout3d", "MaxUnpool2d", "LPPool2d", "Fold",
         "Unfold", "PixelShuffle", "Bilinear"), _OF_OPERATIONS,
    ),
    "Conv3d": "cr.functional.conv3d(x, weight, bias)",
    "ConvTranspose3d": "cr.functional.conv_transpose3d(x, weight, bias)",
}  # fmt: skip


def missing_layer(name: str) -> MissingNameError:
    """The error for a name that `nn` lacks; with advice if it is one of PyTorch's layers."""
    advice = LAYER_ADVICE.get(name)
    if advice is None:
        return MissingNameError(f"nn has no {name!r}. See dir(nn)")
    advice = f"There is {advice}" if advice.startswith("nothing") else f"Use {advice}"
    return MissingNameError(f"nn has no {name!r}. {advice}")


# -------------------------------------------------------------------------------------- names of the rooms

# Functions of torch.nn.functional, torch.utils.data and torch.nn.init → what to write, as the end of "Use …".
ROOM_ADVICE: Mapping[str, Mapping[str, str]] = {
    "functional": {
        "one_hot": "cr.eye(classes)[y]", "normalize": "x / cr.sqrt((x * x).sum(axis=-1, keepdims=True))",
        "upsample": "cr.functional.interpolate(x, …)", "cosine_similarity": "cr.vecdot(x, y) over the lengths of both",
        "glu": "a * cr.sigmoid(b), of the two halves", "prelu": "cr.functional.leaky_relu(x, slope)",
        "gaussian_nll_loss": "an expression of your own",
    },
    "linalg": {
        "norm": "cr.linalg.vector_norm(x, axis=…) or cr.linalg.matrix_norm(x)", "cross": "an expression of your own",
        "diagonal": "x[cr.arange(n), cr.arange(n)]", "trace": "x[cr.arange(n), cr.arange(n)].sum()",
        "matrix_power": "cr.linalg.matmul(x, x)",
        **dict.fromkeys(
            ("cholesky", "det", "eigh", "eigvalsh", "inv", "matrix_rank", "pinv", "qr", "slogdet", "solve", "svd",
             "svdvals"), "numpy.linalg on x.detach().numpy(): nothing here decomposes a matrix",
        ),
    },
    "data": {
        **dict.fromkeys(("TensorDataset", "IterableDataset"), "arrays: DataLoader((X, y)), cr.fit; or cr.data.Dataset"),
        "random_split": "dataset.split(0.2), or cr.data.train_test_split(X, y)",
        **dict.fromkeys(("transforms", "v2", "ToTensor"), "cr.data.as_images, and augment= of cr.fit and DataLoader"),
        **dict.fromkeys(("Normalize", "Resize", "CenterCrop"), "cr.data.ImageFolder(root, resize=…), or arithmetic"),
        **dict.fromkeys(("RandomRotation", "ColorJitter", "RandomAffine", "RandomErasing"),
                        "a function (images, chance) → images as augment="),
        "pad_sequence": "cr.data.pad_sequences(sequences)",
        **dict.fromkeys(("Tokenizer", "StringLookup", "TextVectorization"), "cr.data.Vocabulary.from_text(text)"),
        "timeseries_dataset_from_array": "cr.data.SeriesWindows(values, length, horizon)",
        "image_dataset_from_directory": "cr.data.ImageFolder(root)",
        **dict.fromkeys(("WeightedRandomSampler", "RandomSampler", "Sampler"), "sample_weight= and shuffle="),
    },
    "nn.utils": {
        "rnn": "cr.data.pad_sequences, then net(x, lengths=lengths)",
        "parametrizations": "a forward of your own", "prune": "a mask that multiplies the weight",
    },
    "nn.init": {"dirac_": "weight.copy_(cr.eye(n)), under cr.no_grad()"},
}  # fmt: skip


def missing_in(room: str, name: str, known: Iterable[str]) -> MissingNameError:
    """The error for a name that a room of the package lacks: advice, or the name that is meant."""
    advice = ROOM_ADVICE[room].get(name)
    if advice is None:
        near = difflib.get_close_matches(
            name, [one for one in known if not one.startswith("_")], n=1, cutoff=0.8
        )
        return MissingNameError(
            f"{room} has no {name!r}. {f'Did you mean {near[0]!r}?' if near else f'See dir(cr.{room})'}"
        )
    return MissingNameError(f"{room} has no {name!r}. Use {advice}")
