"""`cr.compile`: which program serves a call, made first if there is none.

Keeps the traces of a function with their machine code, and says why another one had to be made.
Knows programs and traces; knows nothing of how code is made or run.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from ..backends import refuse_without_jax
from ..compiler import nothing_collected
from ..config import config
from ..elsewhere import checked
from ..errors import ArgumentError, RecompileWarning, TraceError, warn
from ..graph import Graph, state
from ..locks import FINDING, lock
from ..structure import can_return, changes_since
from ..trace import MovedOn, NeedsNumber, Plain, Traced, difference_between, trace
from .audit import Audit, audit_program
from .device import DeviceProgram
from .device_report import audit_device, report_of_device
from .program import Program
from .report import Report, Stages, report_of
from .segmented import Segmented
from .served import Call, Served

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

# Further compilations for one cause after which it is told that they will not end.
_STORM = 8

# The call that is compared with a fresh trace.
_VERIFIED_CALLS = 2


class Compiled(Generic[P, R]):
    """A function that runs as machine code, one program for each kind of call.

    `recompiles` says in words why the function had to be traced again: one entry for each time, the last 1000.
    """

    def __init__(
        self, function: Callable[P, R], backend: str = "native", patient: bool = True, fallback: bool = False
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.backend = backend
        self.recompiles: list[str] = []
        self._programs: list[Served] = []
        self._last: Served | None = None
        # Python numbers by where they live: those that are inputs, and those that decide what the graph looks like.
        self._dynamic: set[Any] = set()
        self._static: set[Any] = set()
        self._counts: dict[str, int] = {}
        # That it is compiled again and again, in words; told as a warning, unless its owner looks here.
        self.storm: str | None = None
        self._patient = patient
        self._fallback = fallback
        # Runs the function in segments, once it has turned out that it is no graph; and why.
        self._segmented: Segmented | None = None
        self.fallback_reason: str | None = None
        self._lock = lock(threading.RLock(), FINDING)

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Run the program for this kind of call, made first if there is none."""
        program = self._last
        found = None if program is None else program.serve(args, keywords)
        if found is None:
            if not config.compile or state.trace is not None:
                return self.function(*args, **keywords)
            if self._segmented is not None:
                return cast(R, self._segmented(*args, **keywords))
            try:
                program, found = self._served(args, keywords)
            except TraceError as failure:
                return cast(R, self._fall_back(failure, args, keywords))
        assert program is not None
        if program.calls < _VERIFIED_CALLS:
            try:
                self._verify(program, args, keywords)
            except TraceError as failure:
                return cast(R, self._fall_back(failure, args, keywords))
        result: R = program.run(found)
        return result

    def _fall_back(self, failure: TraceError, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """What cannot be one graph runs in segments from here on, if that was asked for."""
        if not self._fallback or isinstance(failure, MovedOn):
            raise failure
        self.fallback_reason = str(failure)
        self._programs, self._last = [], None
        self._segmented = Segmented(self.function)
        return self._segmented(*args, **keywords)

    def _served(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Served, Call]:
        """The program for a call, made first if there is none, and what it has found."""
        with self._lock:  # of threads that bring the same new kind of call, one traces
            for program in reversed(self._programs):
                found = program.serve(args, keywords)
                if found is not None:
                    self._programs.remove(program)
                    self._programs.append(program)  # the one that was used longest ago stands first
                    self._last = program
                    return program, found
            program = self._make(args, keywords)
            found = program.serve(args, keywords)
            if found is None:
                told = (
                    "; ".join(map(str, program.traced.guards.differences(args, keywords)))
                    or "its surroundings"
                )
                raise TraceError(
                    f"a compiled step does the same at each call; {self._name} changes what it depends on while it is "
                    f"looked at: {told}. Compute that before the step and pass it as an argument"
                )
            self._last = program
            return program, found

    def _verify(self, program: Served, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """The first calls are traced again: what has changed by itself, seen by no guard, is found here."""
        program.calls += 1
        if program.calls != _VERIFIED_CALLS:
            return
        with self._lock:
            again = trace(self.function, args, keywords, self._name, program.traced.dynamic, False)
        told = difference_between(program.traced, again)
        if told is not None:
            self._programs = [one for one in self._programs if one is not program]
            self._last = None
            raise MovedOn(
                f"a compiled step does the same at each call; {self._name} computes something else although nothing "
                f"that it depends on has changed: {told[0]}. Compute what changes before the step and pass it as an "
                "argument",
                told[1],
            )

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {self._name}, {len(self._programs)} programs>"

    def __reduce__(self) -> Any:
        """Copies and pickles have the function, and compile it anew: machine code belongs to this process."""
        return Compiled, (self.function, self.backend, self._patient, self._fallback)

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def graph(self, *args: P.args, **keywords: P.kwargs) -> Graph:
        """The graph of a call with these arguments, which is traced but not run; without any, the last one's."""
        if not args and not keywords and self._last is not None:
            return self._last.traced.graph
        return trace(self.function, args, keywords, self._name).graph

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
            program, found = self._served(args, keywords)
            sources = program.snapshot(found[0])
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
        last = self._last
        program, (given, _) = self._served(args, keywords)
        self._last = last
        if isinstance(program, DeviceProgram):
            return audit_device(program, given)
        assert isinstance(program, Program)
        return audit_program(program, given)

    def _needed(self) -> Served:
        """The last call's program."""
        if self._last is None:
            raise ArgumentError(f"{self._name} has not been compiled yet. Call it once first")
        return self._last

    # ------------------------------------------------------------------------------- programs

    def _trace(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Traced:
        """A trace; numbers that turn out to decide what it looks like are no inputs from then on."""
        while True:
            try:
                return trace(self.function, args, keywords, self._name, frozenset(self._dynamic))
            except NeedsNumber as needed:
                self._dynamic -= needed.keys
                self._static |= needed.keys

    def _make(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Served:
        """Trace and compile; say why, if this is not the first time."""
        reasons = self._reasons(args, keywords)
        with nothing_collected():
            traced = self._trace(args, keywords)
            program = DeviceProgram(traced) if self.backend == "jax" else Program(traced)
        if self._last is not None:
            self._note(reasons)
        if isinstance(program, Program) and program.native is None:
            _say_once()
        kept = [one for one in self._programs if can_return(one.traced.version)]
        self._programs = [*kept, program][-_MOST_PROGRAMS:]
        return program

    def _reasons(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> list[str]:
        """What is different from the last call, in words. Numbers that have changed become inputs."""
        if self._last is None:
            return []
        last = self._last.traced
        differences = last.guards.differences(args, keywords)
        for one in differences:
            before, key = one.pattern.value, getattr(one.pattern, "key", None)
            number = type(one.pattern) is Plain and type(before) in (int, float)
            if number and type(one.now) is type(before) and key is not None and key not in self._static:
                self._dynamic.add(key)
        found = [
            f"{label}: {one} → {other}"
            for label, one, other in zip(
                ("gradients enabled", "config.check_finite"),
                last.guards.flags,
                (state.grad_enabled, config.check_finite),
            )
            if one != other
        ]
        found += [str(one) for one in differences]
        found += [one for one in last.changed_cells() if one not in found]
        written = changes_since(last.version, last.answered)
        found += [one for one in written or [] if one not in found]
        if written is None and not found:
            found.append("attributes of modules or optimizers were written")
        return found

    def _note(self, reasons: list[str]) -> None:
        """Keep the reason; where the same one comes again and again, say so once."""
        more = [f"and {len(reasons) - _MOST_CAUSES} more"] if len(reasons) > _MOST_CAUSES else []
        text = "; ".join([*reasons[:_MOST_CAUSES], *more])
        self.recompiles.append(text or "its program was dropped: there were too many others")
        del self.recompiles[:-_MOST_REASONS]
        for one in reasons[:_MOST_CAUSES]:
            name = one.partition(": ")[0]
            self._counts[name] = self._counts.get(name, 0) + 1
            if self._counts[name] == _STORM + 1:
                told = f"{self._name} was compiled {_STORM} times more because of {name} (at last {one})"
                self.storm = f"{told}. {_cure(one)}"
                if self._patient:
                    warn(self.storm, RecompileWarning)


def _cure(reason: str) -> str:
    """What helps against a reason that comes again and again."""
    if "[" in reason.partition(": ")[2] and "→" in reason:
        return (
            "Give it batches of few shapes: cr.data.DataLoader(bucket_by_length=, pad_to_multiple_of=), or drop_last "
            "for the last batch, which is smaller"
        )
    before = reason.rpartition(" → ")[0].rpartition(": ")[2]
    if before[:1].isdigit() or before[:1] == "-":
        return "It decides what the step looks like, and each value needs code of its own: pass a tensor, use cr.where"
    return "Keep the object and change what is in it, or pass it as an argument"


@functools.cache
def _say_once() -> None:
    print(
        "chainrule: llvmlite is not installed, so compiled steps run on the NumPy interpreter",
        file=sys.stderr,
    )


@overload
def compile(
    function: Callable[P, R], *, backend: str | None = None, fallback: bool = False
) -> Compiled[P, R]: ...


@overload
def compile(
    function: None = None, *, backend: str | None = None, fallback: bool = False
) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...


@checked({
    "mode": "Leave it out: there is one way to compile", "options": "Leave it out: there is one way to compile",
    "fullgraph": "Leave it out: the function becomes one graph, or an error tells why not; fallback=True allows pieces",
    "dynamic": "Leave it out: each shape has a program of its own",
})  # fmt: skip
def compile(function: Any = None, *, backend: str | None = None, fallback: bool = False) -> Any:
    """The function as one native function: forward, loss, backward and update in one call.

    It works on ordinary eager code: what is read from parameters becomes an input, what is assigned becomes an
    output, and a step either happens as a whole or changes nothing. A new shape, dtype or flag compiles once more
    (`recompiles` says why). CHAINRULE_COMPILE=0 runs everything eagerly.
    backend: "native" (our own machine code, for the processor), or "jax" (XLA through JAX, on the GPU or TPU that JAX
    has; parameters stay there from step to step); without it `cr.config.backend` decides.
    fallback: a function that is no graph (it asks for numbers on the way, its shapes depend on the data, it reads files
    or draws NumPy's random numbers) runs as Python at each call, and its operations in native segments between the
    places where numbers are asked for; `fallback_reason` says why. An iterator, a queue or a socket that the attempt
    to record it has moved on cannot be put back: that stays an error. Native only.
    What the function reads besides its arguments (attributes, lists, dicts, globals, closures) is compared at each
    call; what it writes there is written by each call; numbers that change become inputs. `print` and `tensor.item()`
    are delivered after the call.
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
        return lambda function: compile(function, backend=chosen, fallback=fallback)
    if fallback and chosen != "native":
        raise ArgumentError(
            f"fallback=True runs native segments; got backend={chosen!r}. Leave one of them out"
        )
    if isinstance(function, Compiled):
        if (backend is None or function.backend == chosen) and function._fallback == fallback:
            return function
        function = function.function
    if not callable(function):
        raise ArgumentError(f"cr.compile needs a function; got {type(function).__name__}")
    return Compiled(function, chosen, fallback=fallback)


def check_backend(backend: Any) -> str:
    """The name of a backend that is there. Raises ArgumentError or MissingExtraError."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend must be {' or '.join(map(repr, BACKENDS))}; got {backend!r}")
    if backend == "jax":
        refuse_without_jax()
    return str(backend)
