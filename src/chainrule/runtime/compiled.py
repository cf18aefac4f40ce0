"""`cr.compile`: which program serves a call, made first if there is none.

Keeps the traces of a function with their machine code, and says why another one had to be made.
Knows programs and traces; knows nothing of how code is made or run.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..backends import refuse_without_jax
from ..compiler import nothing_collected
from ..config import config
from ..elsewhere import checked
from ..errors import ArgumentError
from ..graph import Graph, state
from ..locks import FINDING, lock
from ..structure import can_return, changes_since, structure_version
from ..trace import Arguments, arguments_of, labels, trace
from .audit import Audit, audit_program
from .device import DeviceProgram
from .device_report import audit_device, report_of_device
from .program import Program
from .report import Report, Stages, report_of
from .served import Served

P = ParamSpec("P")
R = TypeVar("R")

#: Who can run a compiled step.
BACKENDS = ("native", "jax")

# Traces of one function that are kept; the one that was used longest ago goes first.
_MOST_PROGRAMS = 64

# Reasons that are kept.
_MOST_REASONS = 1000

# Causes that one reason names.
_MOST_CAUSES = 4


class Compiled(Generic[P, R]):
    """A function that runs as machine code, one program for each kind of call.

    `recompiles` says in words why the function had to be traced again: one entry for each time, the last 1000.
    """

    def __init__(self, function: Callable[P, R], backend: str = "native") -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.backend = backend
        self.recompiles: list[str] = []
        self._programs: list[Served] = []
        self._last: Served | None = None
        self._lock = lock(threading.RLock(), FINDING)

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Run the program for this kind of call, made first if there is none."""
        last = self._last
        if last is not None and not keywords and last.serves(args):
            quick: R = last.run(args)
            return quick
        if not config.compile or state.trace is not None:
            return self.function(*args, **keywords)
        arguments = arguments_of(args, keywords)
        with self._lock:  # of threads that bring the same new kind of call, one traces
            program = self._find(arguments) or self._make(arguments)
            self._last = program
        result: R = program(arguments.leaves)
        return result

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {self._name}, {len(self._programs)} programs>"

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def graph(self, *args: P.args, **keywords: P.kwargs) -> Graph:
        """The graph of a call with these arguments, which is traced but not run; without any, the last one's."""
        if not args and not keywords and self._last is not None:
            return self._last.traced.graph
        return trace(self.function, arguments_of(args, keywords), self._name).graph

    def stages(self) -> Stages:
        """Every stage of the last call's program as text, by name: trace, simplify, layout, fuse, lower, plan, llvm.

        With backend="jax": trace, simplify, jaxpr, stablehlo, hlo. A dict that prints as one text. Raises ArgumentError
        before the first call.

        >>> import chainrule as cr
        >>> double = cr.compile(lambda x: x * 2.0)
        >>> _ = double(cr.ones(3))
        >>> print(double.stages()["lower"])
        loops <lambda>: 1 nests
        nest 0: %2 = multiply float32[3]
          for i in 3:
            v0 = %1[i]
            v1 = multiply v0, 2.0
            %2[i] = v1
        """
        program = self._needed()
        if isinstance(program, DeviceProgram):
            return Stages(program.stages())
        assert isinstance(program, Program)
        return Stages(program.compilation.stages)

    def report(self, *args: P.args, **keywords: P.kwargs) -> Report:
        """What every value of the step became and why; what every nest costs, moves and takes; why it was traced again.

        Measured with these arguments, or with stand-ins for those of the last call, on copies of everything that the
        step reads: nothing is changed, and no random number is used up.

        >>> import chainrule as cr
        >>> double = cr.compile(lambda x: cr.exp(x) * 2.0)
        >>> _ = double(cr.ones(3))
        >>> report = double.report()
        >>> report.native_share, [(value.operation, value.became) for value in report.values]
        (1.0, [('exp(%1)', 'inlined'), ('multiply(%2, 2.0)', 'stored')])
        """
        program, sources = self._last, None
        if args or keywords or program is None:
            arguments = arguments_of(args, keywords)
            with self._lock:
                program = self._last = self._find(arguments) or self._make(arguments)
            sources = program.snapshot(arguments.leaves)
        if isinstance(program, DeviceProgram):
            return report_of_device(program, sources, len(self._programs), self.recompiles)
        assert isinstance(program, Program)
        return report_of(program, sources, len(self._programs), self.recompiles)

    def audit(self, *args: P.args, **keywords: P.kwargs) -> Audit:
        """Compare what machine code computes for these arguments with the NumPy interpreter, value by value.

        Every stored value is compared in float64 from the operands that the machine code itself has used, with a bound
        for what rounding explains; a difference is blamed on one operation and the user's line. The call is not made:
        no parameter, gradient or optimizer changes. Raises what tracing the function raises.

        >>> import chainrule as cr
        >>> step = cr.compile(lambda x: cr.log(cr.exp(x) + 1.0).sum())
        >>> step.audit(cr.tensor([0.5, -2.0])).ok
        True
        """
        arguments = arguments_of(args, keywords)
        with self._lock:
            program = self._find(arguments) or self._make(arguments)
        if isinstance(program, DeviceProgram):
            return audit_device(program, arguments.leaves)
        assert isinstance(program, Program)
        return audit_program(program, arguments.leaves)

    def _needed(self) -> Served:
        """The last call's program."""
        if self._last is None:
            raise ArgumentError(f"{self._name} has not been compiled yet. Call it once first")
        return self._last

    # ------------------------------------------------------------------------------- programs

    def _find(self, arguments: Arguments) -> Served | None:
        """The program that serves this call: the same kind of arguments, and nothing changed around it."""
        version = structure_version()
        for program in reversed(self._programs):
            traced = program.traced
            if traced.arguments.key != arguments.key:
                continue
            if traced.version != version and changes_since(traced.version) != []:
                continue
            if not traced.changes():
                traced.version = version
                self._programs.remove(program)
                self._programs.append(program)  # the one that was used longest ago stands first
                return program
        return None

    def _make(self, arguments: Arguments) -> Served:
        """Trace and compile; say why, if this is not the first time."""
        reason = self._reason(arguments)
        with nothing_collected():
            traced = trace(self.function, arguments, self._name)
            program = DeviceProgram(traced) if self.backend == "jax" else Program(traced)
        program.traced.arguments = Arguments(_kept(arguments), arguments.structure, arguments.key)
        program.traced.labels = self._labels(arguments)
        if self._last is not None:
            self.recompiles.append(reason)
            del self.recompiles[:-_MOST_REASONS]
        if isinstance(program, Program) and program.native is None:
            _say_once()
        kept = [one for one in self._programs if can_return(one.traced.version)]
        self._programs = [*kept, program][-_MOST_PROGRAMS:]
        return program

    def _reason(self, arguments: Arguments) -> str:
        """What is different from the last call, in words."""
        if self._last is None:
            return ""
        last = self._last.traced
        found = [] if last.arguments.key == arguments.key else self._differences(last.arguments, arguments)
        written = changes_since(last.version)
        changed = last.changes()
        found += changed + [one for one in written or [] if one not in changed]
        if written is None and not changed:
            found.append("attributes of modules or optimizers were written")
        more = [f"and {len(found) - _MOST_CAUSES} more"] if len(found) > _MOST_CAUSES else []
        return (
            "; ".join([*found[:_MOST_CAUSES], *more]) or "its program was dropped: there were too many others"
        )

    def _labels(self, arguments: Arguments) -> list[str]:
        """What the leaves of a call's arguments are called."""
        try:
            names = list(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):
            names = []
        return labels(arguments.structure, names)

    def _differences(self, old: Arguments, new: Arguments) -> list[str]:
        before, now = self._labels(old), self._labels(new)
        if old.key[0] != new.key[0]:
            if before != now:
                return [f"arguments: {', '.join(before)} → {', '.join(now)}"]
            return ["the arguments are nested in another way"]
        found = []
        for label, one, other in zip(
            ("gradients enabled", "config.check_finite"), old.key[1:3], new.key[1:3]
        ):
            if one != other:
                found.append(f"{label}: {one} → {other}")
        for label, one, other in zip(now, old.key[3:], new.key[3:]):
            if one != other:
                told = f"{_shown(one)} → {_shown(other)}"
                found.append(
                    f"argument {label}: " + (told if _shown(one) != _shown(other) else "another object")
                )
        return found


def _kept(arguments: Arguments) -> list[Any]:
    """Leaves without the arrays: what is an input is not held."""
    return [
        None if isinstance(key, tuple) else leaf for key, leaf in zip(arguments.key[3:], arguments.leaves)
    ]


def _shown(key: Any) -> str:
    return str(key[1]) if isinstance(key, tuple) and len(key) == 2 else str(key)


@functools.cache
def _say_once() -> None:
    print(
        "chainrule: llvmlite is not installed, so compiled steps run on the NumPy interpreter",
        file=sys.stderr,
    )


@overload
def compile(function: Callable[P, R], *, backend: str | None = None) -> Compiled[P, R]: ...


@overload
def compile(
    function: None = None, *, backend: str | None = None
) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...


@checked({
    "mode": "Leave it out: there is one way to compile", "options": "Leave it out: there is one way to compile",
    "fullgraph": "Leave it out: the function becomes one graph, or an error tells why not",
    "dynamic": "Leave it out: each shape has a program of its own",
})  # fmt: skip
def compile(function: Any = None, *, backend: str | None = None) -> Any:
    """The function as one native function: forward, loss, backward and update in one call.

    It works on ordinary eager code: what is read from parameters becomes an input, what is assigned becomes an
    output, and a step either happens as a whole or changes nothing. A new shape, dtype or flag compiles once more
    (`recompiles` says why). CHAINRULE_COMPILE=0 runs everything eagerly.
    backend: "native" (our own machine code, for the processor), or "jax" (XLA through JAX, on the GPU or TPU that JAX
    has; parameters stay there from step to step); without it `cr.config.backend` decides.
    Raises TraceError where the function asks for numbers, CompileError for an operation without machine code,
    MissingExtraError for "jax" without JAX.

    >>> import chainrule as cr
    >>> from chainrule.runtime import compile
    >>> w = cr.tensor(1.0, requires_grad=True)
    >>> @compile
    ... def step(x):
    ...     loss = (w * x - 1.0) ** 2
    ...     loss.backward()
    ...     with cr.no_grad():
    ...         w.copy_(w - 0.25 * w.grad)
    ...     w.grad = None
    ...     return loss
    >>> [step(cr.tensor(2.0)).item() for _ in range(2)]
    [1.0, 1.0]
    """
    chosen = check_backend(config.backend if backend is None else backend)
    if function is None:
        return lambda function: compile(function, backend=chosen)
    if isinstance(function, Compiled):
        if backend is None or function.backend == chosen:
            return function
        function = function.function
    if not callable(function):
        raise ArgumentError(f"cr.compile needs a function; got {type(function).__name__}")
    return Compiled(function, chosen)


def check_backend(backend: Any) -> str:
    """The name of a backend that is there. Raises ArgumentError or MissingExtraError."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend must be {' or '.join(map(repr, BACKENDS))}; got {backend!r}")
    if backend == "jax":
        refuse_without_jax()
    return str(backend)
