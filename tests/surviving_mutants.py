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
    ("compiler.orders", "_row_major", "=moved == sorted(moved)", "=len(moved) < 3"),
    ("compiler.merge", "_joined", "=statement.index.substitute(here)", "=Index.of(one.variable)"),
    ("compiler.merge", "_fits", "=(Index.of(one.variable), first.accesses)", "=(Index.of(one.variable), [])"),
    ("compiler.known", "name_of", "=sources, *target()", "=*target()"),
]

REASONS = {
    "equal": "equivalent",
    "speed": "only speed or memory",
    "text": "only texts",
    "elsewhere": "other machines or systems",
    "never": "guards that nothing reaches",
}

#: fault: (kind of reason, why no result can tell it).
SURVIVORS: dict[str, tuple[str, str]] = {
    "compiler.commit._elementwise: by hand: group.root.type != old.type → False": (
        "never",
        "a graph whose cell would take a value of another type is refused before (`graph.verify`)",
    ),
    "compiler.commit._elementwise: by hand: node.shape and node.shape != old.shape → False": (
        "equal",
        "operands of an elementwise node have its shape or none; a broadcast is a view, and is asked itself",
    ),
    "compiler.orders._Orders._neighbours: by hand: node not in self.fixed or node.inputs → True": (
        "equal",
        "a node without inputs has no operands to go through",
    ),
    "compiler.orders._row_major: by hand: moved == sorted(moved) → len(moved) < 3": (
        "speed",
        "a value whose order is forgotten lies in row-major order for all who read it",
    ),
    "compiler.merge._joined: by hand: statement.index.substitute(here) → Index.of(one.variable)": (
        "equal",
        "`_fits` lets nests be joined only if each store stands at the loop's own variable",
    ),
    "compiler.__init__.Compilation._written: without self.known.entry != emitted.entry": (
        "never",
        "a guard against a fault of the cache itself",
    ),
    "compiler.__init__._compile_graph: without _dump('fuse', fusion)": (
        "text",
        "a stage is printed for people",
    ),
    "compiler.builder.Builder.value: without self._count += bool(name)": (
        "text",
        "names of values are only printed",
    ),
    "compiler.builder.Builder.library: if name == 'copysign' → False": (
        "speed",
        "the C library's function gives the same number as the instruction",
    ),
    "compiler.builder.Builder.index: self.add(whole, self.literal(size, int64)): arguments exchanged": (
        "equal",
        "a sum",
    ),
    "compiler.commit._late: without group.root in readers": (
        "never",
        "what nobody reads and is no result is no group",
    ),
    "compiler.contraction._Roles._columns: 1 → 2": ("speed", "other columns of the same sum"),
    "compiler.contraction._Roles._cost: always 0": ("speed", "other columns of the same sum"),
    "compiler.folds._Fold.__init__: 1 → 2": ("speed", "the other way to fold gives the same sums"),
    "compiler.folds.FoldWriter.write_reduction: if fold.folded * self._operations() <= _WRITTEN_OUT → True": (
        "speed",
        "longer folds are written out too",
    ),
    "compiler.forms.lowering_of: without not _has_loops(node.attributes['body'])": (
        "speed",
        "NumPy runs every loop over time",
    ),
    "compiler.fuse.Fusion.product_of: without not self.stored(shown)": (
        "speed",
        "a view of a stored product computes the product again",
    ),
    "compiler.fuse._decide: if check.condition in readers → False": (
        "speed",
        "a value is stored or not, the same number",
    ),
    "compiler.fuse._readers_through: View | Gather → View": (
        "speed",
        "a value is stored or not, the same number",
    ),
    "compiler.fuse._limit_size: 1 → 0": ("speed", "expressions are cut a little later"),
    "compiler.fuse._group: sorted(reads, key=by_serial): as it is": (
        "text",
        "the order in which reads are printed",
    ),
    "compiler.llvm.NestFunction.kept: 0 → -1": ("speed", "whether LLVM writes out a short loop"),
}
