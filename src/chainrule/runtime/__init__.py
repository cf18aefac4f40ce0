"""Running compiled steps: programs, calls, commits."""

from .compiled import Compiled, compile
from .program import Program
from .threads import get_num_threads, set_num_threads

__all__ = ["Compiled", "Program", "compile", "get_num_threads", "set_num_threads"]
