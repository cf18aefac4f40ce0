"""Where an element stands: integer expressions over loop variables, kept in one normal form.

constant + Σ coefficient · atom, where an atom is a loop variable, a quotient or remainder of such a sum, or a
number read from memory. Known ranges cancel divisions, so that reshapes cost nothing where they can.
Knows nothing of arrays, nodes or machine code.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_next_order = itertools.count().__next__


class _Counted:
    """Something that takes the values 0 … extent − 1."""

    extent: int

    @property
    def low(self) -> int:
        """Smallest value."""
        return 0

    @property
    def high(self) -> int:
        """Largest value (0 for an empty loop, whose body never runs)."""
        return max(self.extent - 1, 0)


@dataclass(frozen=True, eq=False)
class Variable(_Counted):
    """A loop variable: 0 … extent − 1."""

    name: str
    extent: int
    order: int = field(default_factory=_next_order)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Dynamic(_Counted):
    """A position read from memory, made safe before use: 0 … extent − 1."""

    value: Any
    extent: int
    order: int = field(default_factory=_next_order)

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Quotient:
    """⌊index / divisor⌋ of an index that is never negative."""

    index: Index
    divisor: int

    @property
    def low(self) -> int:
        """Smallest value."""
        return self.index.low // self.divisor

    @property
    def high(self) -> int:
        """Largest value."""
        return self.index.high // self.divisor

    @property
    def order(self) -> int:
        """Place among atoms."""
        return self.index.order

    def __str__(self) -> str:
        return f"({self.index} // {self.divisor})"


@dataclass(frozen=True)
class Remainder:
    """index mod divisor, of an index that is never negative."""

    index: Index
    divisor: int

    @property
    def low(self) -> int:
        """Smallest value."""
        return 0

    @property
    def high(self) -> int:
        """Largest value."""
        return self.divisor - 1

    @property
    def order(self) -> int:
        """Place among atoms."""
        return self.index.order

    def __str__(self) -> str:
        return f"({self.index} % {self.divisor})"


Atom = Variable | Dynamic | Quotient | Remainder


class Index:
    """constant + Σ coefficient · atom. Never changed; made by the ten thousand, so it is no dataclass."""

    __slots__ = ("_hash", "_high", "_low", "constant", "terms")

    def __init__(self, constant: int, terms: frozenset[tuple[Atom, int]] = frozenset()) -> None:
        self.constant, self.terms = constant, terms
        self._hash: int | None = None
        self._low: int | None = None
        self._high: int | None = None

    def __eq__(self, other: object) -> bool:
        if type(other) is not Index:
            return NotImplemented
        return self is other or (self.constant == other.constant and self.terms == other.terms)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.constant, self.terms))
        return self._hash

    @staticmethod
    def of(value: Index | Atom | int) -> Index:
        """An index from an atom or a number."""
        if isinstance(value, Index):
            return value
        return Index(value) if isinstance(value, int) else Index(0, frozenset(((value, 1),)))

    @property
    def ordered(self) -> list[tuple[Atom, int]]:
        """The terms, outermost variable first."""
        if len(self.terms) < 2:
            return list(self.terms)
        return sorted(self.terms, key=lambda term: (term[0].order, -term[1], str(term[0])))

    @property
    def low(self) -> int:
        """Smallest value over all iterations."""
        if self._low is None:
            self._low = self.constant + sum(min(c * atom.low, c * atom.high) for atom, c in self.terms)
        return self._low

    @property
    def high(self) -> int:
        """Largest value over all iterations."""
        if self._high is None:
            self._high = self.constant + sum(max(c * atom.low, c * atom.high) for atom, c in self.terms)
        return self._high

    @property
    def order(self) -> int:
        """Place among atoms."""
        return min((atom.order for atom, _ in self.terms), default=-1)

    def coefficient(self, atom: Atom) -> int:
        """How far one step of the atom moves (0 if it does not occur)."""
        return next((c for other, c in self.terms if other == atom), 0)

    def atoms(self) -> Iterator[Atom]:
        """Every atom, those inside quotients and remainders too."""
        for atom, _ in self.terms:
            yield atom
            if isinstance(atom, Quotient | Remainder):
                yield from atom.index.atoms()

    # ------------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Index | int) -> Index:
        added = Index.of(other)
        if not added.terms:
            return Index(self.constant + added.constant, self.terms) if added.constant else self
        if not self.terms:
            return Index(self.constant + added.constant, added.terms) if self.constant else added
        return _combine(self.constant + added.constant, itertools.chain(self.terms, added.terms))

    __radd__ = __add__

    def __mul__(self, factor: int) -> Index:
        if factor == 1 or not factor:
            return self if factor else Index(0)
        return Index(self.constant * factor, frozenset((atom, c * factor) for atom, c in self.terms))

    __rmul__ = __mul__

    def __sub__(self, other: Index | int) -> Index:
        return self + Index.of(other) * -1

    def __rsub__(self, other: Index | int) -> Index:
        return Index.of(other) + self * -1

    def __floordiv__(self, divisor: int) -> Index:
        whole, rest = self._split(divisor)
        if rest.low >= 0 and rest.high < divisor:
            return whole
        if not rest.constant and len(rest.terms) == 1:
            ((atom, c),) = rest.terms
            if c == 1 and isinstance(atom, Quotient):
                return whole + Index.of(Quotient(atom.index, atom.divisor * divisor))
        return whole + Index.of(Quotient(rest, divisor))

    def __mod__(self, divisor: int) -> Index:
        _, rest = self._split(divisor)
        if rest.low >= 0 and rest.high < divisor:
            return rest
        return Index.of(Remainder(rest, divisor))

    def _split(self, divisor: int) -> tuple[Index, Index]:
        """(whole, rest): self = divisor · whole + rest, every divisible term in `whole`, `rest` never negative."""
        inside = frozenset((atom, c // divisor) for atom, c in self.terms if c % divisor == 0)
        outside = frozenset((atom, c) for atom, c in self.terms if c % divisor)
        rest = Index(self.constant % divisor, outside)
        borrowed = -(rest.low // divisor) if rest.low < 0 else 0
        return Index(self.constant // divisor - borrowed, inside), rest + borrowed * divisor

    def substitute(self, values: Mapping[Atom, Index]) -> Index:
        """The index with atoms replaced, inside quotients and remainders too."""
        result = Index(self.constant)
        for atom, c in self.terms:
            if atom in values:
                result += values[atom] * c
            elif isinstance(atom, Quotient):
                result += (atom.index.substitute(values) // atom.divisor) * c
            elif isinstance(atom, Remainder):
                result += (atom.index.substitute(values) % atom.divisor) * c
            else:
                result += Index.of(atom) * c
        return result

    def __str__(self) -> str:
        parts = [str(atom) if c == 1 else f"{c}*{atom}" for atom, c in self.ordered]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")


def _combine(constant: int, terms: Iterable[tuple[Atom, int]]) -> Index:
    """Like terms added; n · (x // n) + (x % n) becomes x again."""
    total: dict[Atom, int] = {}
    for atom, c in terms:
        total[atom] = total.get(atom, 0) + c
    total = {atom: c for atom, c in total.items() if c}
    for atom, c in total.items():
        if isinstance(atom, Remainder):
            quotient = atom.index // atom.divisor
            if not quotient.constant and len(quotient.terms) == 1:
                ((other, factor),) = quotient.terms
                if factor == 1 and total.get(other) == c * atom.divisor:
                    rest = ((a, k) for a, k in total.items() if a not in (atom, other))
                    return Index(constant, frozenset(rest)) + atom.index * c
    return Index(constant, frozenset(total.items()))


def offset(position: Iterable[Index | int], shape: Iterable[int]) -> Index:
    """Position in row-major order as a distance from the first element."""
    result = Index(0)
    for term, size in zip(position, shape, strict=True):
        result = result * size + Index.of(term)
    return result
