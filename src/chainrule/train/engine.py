"""Who runs a step: Python, or machine code that is made of it.

Each kind of call (its shapes, dtypes and whether it updates) runs as Python first and as machine code from a certain
call on, because making the code takes about as long as some hundred small steps. Which call that is depends on the
model and the batch alone, never on a clock: the two differ in the last bits, and a training must repeat, and go on
from a checkpoint, bit for bit. So the calls of each kind are counted, and the counts are kept in checkpoints.

A step that is no graph (it counts its calls, draws NumPy's random numbers, has hooks …) stays Python, and
`reason` says why.
Knows steps and how they are compiled; knows nothing of epochs and of data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import nn
from ..compiler import available
from ..config import config
from ..errors import ChainruleError, CompileError, NonFiniteError, TraceError
from ..graph import Cell
from ..pytree import flatten, skeleton, unflatten
from ..runtime.compiled import Compiled, check_backend
from ..runtime.served import Served
from ..structure import structure_version
from ..tensor import Tensor
from ..transforms import no_grad
from .step import NotFiniteError, Step, number

Choice = bool | str

# How many seconds a kind of call runs as Python before it is compiled: about what compiling takes. The time of a call
# is not measured but reckoned: so much for each tensor of parameters (what Python takes), and for each number of them
# and place (what the products take), as measured on the processor of the benchmarks, in seconds.
PATIENCE = 0.4
_EACH_TENSOR = 1e-4
_EACH_PRODUCT = 1e-10

# So many changes of the model are more than what a schedule makes.
_RESTLESS = 8

# What the checks of compiled steps say: what must be finite, the smallest and largest number, and why.
_TOLD = re.compile(
    r"(?:a|the) (.+?) must be finite.*?; got (\S+)(?: to (\S+))? ?(.*?)(?:Nothing was changed.*)?$", re.DOTALL
)

_PACKAGE = __name__.partition(".")[0]


@dataclass(eq=False)
class Kind:
    """One kind of call: how often it was made, and its code once it has some."""

    label: str
    calls: int
    wait: int
    compiled: Compiled[Any, Any] | None = None


class Result(NamedTuple):
    """What compiled code has returned, None included."""

    value: Any


class Engine:
    """Runs one function of nested tensors, as Python or as machine code.

    choice: True (machine code from the first call), "auto" (after some calls) or False. watched: what of the user's
    the function calls. own: whether it is the user's own. evaluates: whether it always finds the model in evaluation.
    backend: who runs it when it is compiled, as for `cr.compile`; with "jax" that is from the first call on.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        model: nn.Module,
        choice: Choice,
        watched: Sequence[Any],
        own: bool = False,
        evaluates: bool = False,
        backend: str | None = None,
    ) -> None:
        self.backend = check_backend(config.backend if backend is None else backend)
        self.reason: str | None = None
        #: Whether code was wanted and could not be had, which `reason` explains.
        self.refused = False
        self._function = function
        self._model = model
        # Where Python is forbidden, "auto" has nothing to choose: machine code from the first call, or an error.
        self._choice = True if choice == "auto" and config.forbid_interpreter else choice
        self._watched = tuple(watched)
        self._own = own
        self._ignored = {"_parent", "training"} if evaluates else {"_parent"}
        self._kinds: dict[Any, Kind] = {}
        self._counts: dict[str, int] = {}
        self._version = structure_version()
        self._structure = self._look()
        self._restarts = 0
        self._decide()

    def _decide(self) -> None:
        """Whether there is anything to decide at all."""
        if self._choice is False:
            self.reason = "compile=False"
        elif not config.compile:
            self.reason = "CHAINRULE_COMPILE=0"
        elif self.backend == "native" and not available() and not config.forbid_interpreter:
            self.reason = "llvmlite is not installed"

    @property
    def why_python(self) -> str | None:
        """Why the function runs as Python and will go on to; None otherwise."""
        if self.reason is None and self.compiled is None and self._restarts > _RESTLESS:
            return "the model is changed between steps, so that code would be made for a few of them only"
        return self.reason

    @property
    def policy(self) -> Choice:
        """What this machine makes of the choice: trainings with another policy have other last bits."""
        if self._choice is False or not config.compile:
            return False
        if self.backend == "jax":
            return self.backend
        return self._choice if available() else False

    @property
    def compiled(self) -> Compiled[Any, Any] | None:
        """The code of the kind of call that was made most often, or None."""
        made = [one for one in self._kinds.values() if one.compiled is not None]
        return max(made, key=lambda one: one.calls).compiled if made else None

    # ------------------------------------------------------------------------------- calls

    def kind(self, leaves: list[Any], structure: Any, static: tuple[Any, ...]) -> Kind:
        """The kind of this call, counted; with its code, if it shall run as such."""
        self._notice()
        key = _key(leaves, structure, static)
        found = self._kinds.get(key)
        if found is None:
            label = repr((key[0], static, *((list(one.shape), one.dtype.str) for one in leaves)))
            found = self._kinds[key] = Kind(label, self._counts.get(label, 0), self._wait(leaves))
        if found.compiled is None and self.reason is None and found.calls >= found.wait:
            self._compile(found, leaves, structure, static)
        found.calls += 1
        return found

    def call(self, tree: Any, *static: Any) -> Any:
        """The function of a nest of tensors and of plain values."""
        leaves, structure = flatten(tree)
        kind = self.kind(leaves, structure, static)
        found = self._served(kind, leaves)
        return self._function(*tree, *static) if found is None else found.value

    def _served(self, kind: Kind, leaves: list[Any]) -> Result | None:
        """What the code of a call returns; None where there is none, or none can be made: then Python goes on."""
        compiled = kind.compiled
        if compiled is None or self.reason is not None:
            return None
        before = compiled._last
        try:
            result = Result(compiled(*leaves))
        except NonFiniteError:
            raise
        except Exception as failure:
            # A program that served this call already has failed at its work: no choice of who runs it mends that.
            if self._choice is True or (
                before is not None
                and compiled._last is before
                and before.serve(tuple(leaves), {}) is not None
            ):
                raise
            self._stay_python(_words(failure))
            return None
        if compiled.storm is not None and self._choice is not True:
            self._stay_python(compiled.storm)
        return result

    def _stay_python(self, reason: str) -> None:
        self.reason, self.refused = reason, True
        for one in self._kinds.values():
            one.compiled = None

    def program(self, tree: Any, *static: Any) -> tuple[Kind, Served] | None:
        """The kind of this call and the program that would serve it right now; None where Python would run it."""
        leaves, structure = flatten(tree)
        self._notice()
        kind = self._kinds.get(_key(leaves, structure, static))
        if kind is None or kind.compiled is None:
            return None
        last = kind.compiled._last
        return (kind, last) if last is not None and last.serve(tuple(leaves), {}) is not None else None

    def _wait(self, leaves: list[Any]) -> int:
        """After how many calls as Python the code is worth being made."""
        if self._choice is True or self.backend == "jax":  # whose device Python's steps do not use
            return 0
        parameters = list(self._model.parameters())
        products = sum(one.size for one in parameters) * (_places(leaves[0]) if leaves else 1)
        return math.ceil(PATIENCE / (_EACH_TENSOR * max(1, len(parameters)) + _EACH_PRODUCT * products))

    def _compile(self, kind: Kind, leaves: list[Any], structure: Any, static: tuple[Any, ...]) -> None:
        function = self._function

        def step(*leaves: Any) -> Any:
            return function(*unflatten(structure, leaves), *static)

        step.__depends__ = self._watched  # type: ignore[attr-defined]
        reason = None
        try:
            reason = self._refusal(step, leaves)
        except Exception as failure:
            if self._choice is True:
                raise
            reason = _words(failure)
        if reason is None:
            kind.compiled = Compiled(step, self.backend, patient=self._choice is True)
        elif self._choice is True:
            raise TraceError(
                f"a step that is compiled computes the same at each call; {reason}. Use compile=False"
            )
        else:
            self._stay_python(reason)

    def _refusal(self, step: Callable[..., Any], leaves: list[Any]) -> str | None:
        """Why the function must stay Python; None if nothing speaks against code."""
        if self._choice is not True and (hooked := _with_hooks(self._model)):
            return f"{hooked} has hooks, which run as Python at each call"
        return None

    # ------------------------------------------------------------------------------- what is counted

    def _notice(self) -> None:
        """After a change of the model the code would be made anew: then the calls count from 0 again."""
        version = structure_version()
        if version == self._version:
            return
        self._version = version
        now = self._look()
        if now != self._structure:
            self._structure = now
            if self._choice is not True:
                self._kinds.clear()
                self._counts.clear()
                self._restarts += 1

    def _look(self) -> Any:
        """What of the model's structure decides about its code, as values that are compared."""
        return [
            (
                id(one),
                [(name, _mark(value)) for name, value in vars(one).items() if name not in self._ignored],
            )
            for one in self._model.modules()
        ] + [one.requires_grad for one in self._model.parameters()]

    def state_dict(self) -> dict[str, int]:
        """How often each kind of call was made."""
        self._notice()
        return {**self._counts, **{one.label: one.calls for one in self._kinds.values()}}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from what `state_dict` gave."""
        self._counts = {name: int(count) for name, count in state.items()}
        self._kinds.clear()
        self._version, self._structure = structure_version(), self._look()


class StepEngine(Engine):
    """Runs the step of a training. Its loss comes back as a number, which is finite, or nothing was changed."""

    def step(
        self, inputs: Any, targets: Any, weights: Tensor | None, share: Tensor | None, update: bool
    ) -> tuple[float, Any]:
        """(loss, outputs) of one batch. Raises NotFiniteError, and then buffers are what they were before."""
        tree = (inputs, targets, weights, share)
        leaves, structure = flatten(tree)
        kind = self.kind(leaves, structure, (update,))
        try:
            found = self._served(kind, leaves)
        except NonFiniteError as failure:
            raise told(failure) from failure
        if found is None:
            return self._python(tree, update)
        loss, outputs = found.value
        return _finite(loss), outputs

    def audit(self, tree: tuple[Any, ...], update: bool) -> None:
        """Compare what the code would compute now with the interpreter; nothing is changed by it.

        Raises CompileError, which names the operation, if they differ.
        """
        leaves, structure = flatten(tree)
        kind = self.kind(leaves, structure, (update,))
        kind.calls -= 1  # the call itself comes after
        if kind.compiled is None:
            return
        audit = kind.compiled.audit(*leaves)
        if not audit.ok:
            raise CompileError(
                "a compiled step must compute what the interpreter computes; got another result. Use compile=False, "
                f"and please report this:\n{audit}"
            )

    def _python(self, tree: tuple[Any, ...], update: bool) -> tuple[float, Any]:
        before = [(cell, cell.array) for cell in map(_cell_of, self._model.buffers())]
        try:
            loss, outputs = self._function(*tree, update)
            return _finite(loss), outputs
        except (NotFiniteError, NonFiniteError) as failure:
            for cell, array in before:
                cell.write(array)
            if isinstance(failure, NonFiniteError):  # a step of the user's own that is compiled
                raise told(failure) from failure
            raise


def make_step_engine(
    step: Step,
    model: nn.Module,
    choice: Choice,
    watched: Sequence[Any],
    own: bool,
    backend: str | None = None,
) -> StepEngine:
    """The engine of a step. One of the user's own is compiled where it is asked for: nobody knows what it does."""
    engine = StepEngine(step, model, choice, watched, own, backend=backend)
    if own and engine.policy == "auto" and engine.reason is None:
        engine.reason = "a step of one's own runs as it is written, unless fit is told compile=True"
    return engine


def make_forward_engine(
    model: nn.Module, choice: Choice, call: Callable[..., Any], backend: str | None = None
) -> Engine:
    """The engine of a model's forward pass in evaluation."""

    def forward(inputs: Any) -> Any:
        with no_grad():
            return call(model, inputs)

    return Engine(forward, model, choice, (model,), evaluates=True, backend=backend)


def told(failure: NonFiniteError) -> NotFiniteError:
    """What a compiled step says of a number that is not finite, as the step in Python would say it."""
    found = _TOLD.match(failure.message)
    if found is None:
        return NotFiniteError("loss", failure.message)
    what, low, high, why = found.groups()
    values = [one.rstrip(".") for one in (low, high or low)]
    made = NotFiniteError(what, values[math.isfinite(float(values[0]))], (why or "").rstrip(". "))
    made.__cause__ = failure
    return made


def _words(failure: Exception) -> str:
    message = failure.message if isinstance(failure, ChainruleError) else str(failure)
    return f"{type(failure).__name__}: {message}"


def _finite(loss: Any) -> float:
    value = number(loss)
    if not math.isfinite(value):
        raise NotFiniteError("loss", f"{value}")
    return value


def _cell_of(tensor: Tensor) -> Cell:
    assert tensor.cell is not None
    return tensor.cell


def _places(inputs: Any) -> int:
    """How many places a network's weights are used at: rows, times the steps of sequences or the pixels of images."""
    shape = inputs.shape
    if inputs.dtype.kind != "f":  # tokens, each of which becomes a vector
        return int(math.prod(shape))
    channels = 1 if len(shape) < 2 else shape[1] if len(shape) > 3 else shape[-1]
    return int(math.prod(shape)) // max(1, channels)


def _key(leaves: list[Any], structure: Any, static: tuple[Any, ...]) -> Any:
    return (skeleton(structure), static, *((one.shape, one.dtype) for one in leaves))


def _mark(value: Any) -> Any:
    """What of an attribute decides about the code. Numbers and tensors that change are inputs of it, not reasons."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return type(value)
    return (value.shape, value.dtype, value.requires_grad) if type(value) is Tensor else id(value)


def _with_hooks(model: nn.Module) -> str | None:
    return next(
        (type(one).__name__ for one in model.modules() if any(True for _ in one.hook_functions())), None
    )
