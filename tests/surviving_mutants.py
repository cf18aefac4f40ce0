"""What `mutate_compiler.py` knows beforehand: faults made by hand, and why some faults cannot be found."""

from __future__ import annotations

#: (module, function, text in it, what stands there instead); "" for nothing, "=…" for text that is no statement.
HAND_MADE: list[tuple[str, str, str, str]] = [
    (
        "compiler.product",
        "_Driver._depth",
        "=w.smaller(p.step, w.rest(p.depth, k)) if p.depth % p.step else p.step",
        "=p.step",
    ),
    ("compiler.product", "_Driver._depth", "=goes_on = 0 if k == 0 else", "=goes_on = 0 if True else"),
    ("compiler.product", "_Driver._depth", "=w.multiply(k, p.left.common)", "=w.multiply(k, p.left.own)"),
    (
        "compiler.product",
        "_Driver._computing",
        "=w.smaller(w.add(begin, per_group), p.panels)",
        "=w.add(begin, per_group)",
    ),
    ("runtime.program", "Program._locate_cells", "=if not first_alone(held, self._in_place)", "=if False"),
    ("runtime.memory", "whole", "=flags.c_contiguous and flags.aligned", "=flags.c_contiguous"),
    ("runtime.memory", "make_alone", "=not cell.owned or not all_alone((cell,))", "=not all_alone((cell,))"),
    ("compiler.commit", "_elementwise", "=group.root.type != old.type", "=False"),
    ("compiler.commit", "_elementwise", "=node.shape and node.shape != old.shape", "=False"),
    (
        "compiler.merge",
        "_Merger.partner",
        "=other.writes.isdisjoint(both) and given.writes.isdisjoint(other.reads)",
        "=other.writes.isdisjoint(both)",
    ),
    (
        "compiler.merge",
        "_fits",
        "=(Index.of(other.variable), second.accesses)",
        "=(Index.of(other.variable), [])",
    ),
    ("compiler.orders", "_Orders._neighbours", "=node not in self.fixed or node.inputs", "=True"),
    ("compiler.fuse", "_decide", "operands |= _operands_of_wholes(nodes)", ""),
    ("runtime.served", "Served.serves", "=held is None or held.requires_grad", "=held is None"),
    ("compiler.orders", "_row_major", "=moved == sorted(moved)", "=len(moved) < 3"),
    ("compiler.merge", "_joined", "=statement.index.substitute(here)", "=Index.of(one.variable)"),
    ("compiler.merge", "_fits", "=(Index.of(one.variable), first.accesses)", "=(Index.of(one.variable), [])"),
    ("compiler.known", "name_of", "=_sources(), ", "="),
]

REASONS = {
    "equal": "equivalent",
    "speed": "only speed or memory",
    "text": "only texts",
    "elsewhere": "other machines or systems",
    "never": "guards that nothing reaches",
}

#: fault: (kind of reason, why no result can tell it).
SURVIVORS: dict[str, tuple[str, str]] = {}
