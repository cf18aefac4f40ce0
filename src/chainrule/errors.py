"""The errors that users see, and where in their code something happened.

Every message has one form: the rule, the values got, what to do, the user's own line.
Knows nothing of arrays, graphs or derivatives.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
import warnings
from types import CodeType
from typing import Any, NamedTuple

PACKAGE_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Origin(NamedTuple):
    """A place in the user's code, kept as (code, instruction) and resolved only when printed."""

    code: CodeType
    lasti: int

    @property
    def file(self) -> str:
        """Path of the source file, as the interpreter knows it."""
        return self.code.co_filename

    @property
    def line(self) -> int:
        """Line number (1-based) of the instruction; 0 if the code carries none."""
        for start, stop, line in self.code.co_lines():
            if start <= self.lasti < stop and line is not None:
                return line
        return self.code.co_firstlineno or 0

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"

    def __reduce__(self) -> Any:
        # Code objects stay in their process: what leaves it is the place that they stand for.
        return Place, (self.file, self.line)


class Place(NamedTuple):
    """An origin that came from another process: the file and the line (1-based)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"


# Python's own module asks each object to copy itself; the line that is meant is where the user has called it.
_COPYING = copy.__file__


def find_origin(depth: int = 1) -> Origin | None:
    """The first frame outside the package, starting `depth` frames up; None if there is none.

    >>> import chainrule.errors as errors
    >>> errors.find_origin(0).code.co_name
    '<module>'
    """
    # Typed loosely: this runs once per recorded operation, so it walks with nothing in between.
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        if not name.startswith(PACKAGE_FOLDER) and not name.startswith("<frozen ") and name != _COPYING:
            return Origin(code, frame.f_lasti)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def at(origin: Origin | Place | None) -> str:
    """` (train.py:14)`, or nothing when the place is unknown."""
    return f" ({origin})" if origin is not None else ""


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """A warning at the user's own line, however deep in the package it is found."""
    origin = find_origin(2)
    if origin is None:
        warnings.warn(message, category, stacklevel=2)
    else:
        warnings.warn_explicit(message, category, origin.file, origin.line)


class ChainruleError(Exception):
    """Base of all errors raised on purpose: `message`, to which the user's line is added."""

    def __init__(self, message: str, origin: Origin | Place | None = None) -> None:
        self.message = message
        self.origin = origin if origin is not None else find_origin(2)
        super().__init__(message + at(self.origin))

    def __reduce__(self) -> Any:
        """What goes to another process: the error as it is, without what cannot leave this one."""
        state = {name: value for name, value in self.__dict__.items() if _can_leave(value)}
        return _restored, (type(self), self.args, state)


def _can_leave(value: Any) -> bool:
    """Whether a value can be pickled."""
    try:
        pickle.dumps(value)
    except Exception:  # whatever a strange object raises when it is asked
        return False
    return True


def _restored(
    kind: type[ChainruleError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> ChainruleError:
    """An error from another process; its message is complete, so nothing is added to it."""
    error: ChainruleError = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error


class ShapeError(ChainruleError, ValueError):
    """Shapes or axes that do not fit the operation."""


class AxisError(ShapeError, IndexError):
    """An axis that the array does not have."""


class NoAxisError(ShapeError, TypeError):
    """The length of a single number, or its entries one by one: NumPy and Python call that a TypeError."""


class CotangentError(ShapeError):
    """A derivative rule answered in another shape than its operand's."""

    def __init__(self, message: str, expected: tuple[int, ...], got: tuple[int, ...]) -> None:
        super().__init__(message, find_origin(2))
        self.expected = expected
        self.got = got


class DtypeError(ChainruleError, TypeError):
    """Data types that do not fit the operation."""


class BoundsError(ChainruleError, IndexError):
    """An index outside the range of its axis."""


class ArgumentError(ChainruleError, ValueError):
    """A value of an argument that has no meaning here."""


class SharingError(ArgumentError, BufferError):
    """Memory was asked for without a copy; graphs and parameters rely on theirs, so it is never given away."""


class MissingNameError(ChainruleError, AttributeError):
    """A name of PyTorch or NumPy that is called otherwise here; the message says how."""


class NotAFunctionError(ChainruleError, TypeError):
    """A part of the package was called that is no function."""


class MissingKeyError(ChainruleError, KeyError):
    """A name that a dict of layers lacks; the message says which there are."""

    __str__ = Exception.__str__  # a KeyError would show the message in quotation marks


class GradientError(ChainruleError, RuntimeError):
    """Something that has no gradient was asked for one, or a graph would be cut silently."""


class GradientCheckError(ChainruleError, AssertionError):
    """A derivative disagrees with numerical differentiation; `report` says where and how."""

    report: Any = None

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message, find_origin(2))
        self.report = report


class TraceError(ChainruleError, RuntimeError):
    """A traced value was used as if it already had numbers."""


class AssertionFailed(ChainruleError, AssertionError):
    """An `assert` inside a compiled step does not hold; nothing was written."""


class NonFiniteError(ChainruleError, FloatingPointError):
    """A loss or gradient of a compiled step is infinite or not a number; nothing was written."""


class CompileError(ChainruleError, RuntimeError):
    """A graph that cannot be turned into machine code."""


class GraphError(ChainruleError, RuntimeError):
    """A graph that breaks its own rules; raised by `verify`."""


class DataError(ChainruleError, ValueError):
    """A file or table that cannot be used as it is.

    `fact` is the same message as data, which can be told in another language, or None.
    """

    fact: Any = None


class ExpressionError(ChainruleError, ValueError):
    """A formula typed by a user that is not plain arithmetic."""


class RunError(ChainruleError, RuntimeError):
    """A run directory or model file that cannot be used.

    `run` is the Run where training is over and only writing it failed, else None.
    """

    run: Any = None


class MissingExtraError(ChainruleError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra."""


class RecompileWarning(UserWarning):
    """A compiled step is compiled again and again for the same reason, which costs more than it saves."""


class GraphRetainedWarning(UserWarning):
    """Many graphs from one line are still alive: results are kept together with their history."""
