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
    "start": "runs once, before any check",
}

#: fault: (kind of reason, why no result can tell it).
SURVIVORS: dict[str, tuple[str, str]] = {
    "compiler.__init__.Compilation._written: without self.known.entry != emitted.entry": (
        "never",
        "a guard against a fault of the cache itself",
    ),
    "compiler.__init__._compile_graph: without _dump('fuse', fusion)": (
        "text",
        "a stage is printed for people",
    ),
    "compiler.assembler._dispose: without manager.detach()": (
        "equal",
        "llvmlite's own way finds an empty method",
    ),
    "compiler.assembler.assemble: without _dispose(manager)": ("speed", "memory that is not given back"),
    "compiler.assembler.main: without sys.path.insert(0, folder)": (
        "speed",
        "the second process fails, and the part is made in this one",
    ),
    "compiler.builder.Builder.index: self.add(whole, self.literal(size, int64)): arguments exchanged": (
        "equal",
        "a sum",
    ),
    "compiler.builder.Builder.library: if name == 'copysign' → False": (
        "speed",
        "the C library's function gives the same number as the instruction",
    ),
    "compiler.builder.Builder.value: without self._count += bool(name)": (
        "text",
        "names of values are only printed",
    ),
    "compiler.commit._elementwise: by hand: group.root.type != old.type → False": (
        "never",
        "a graph whose cell would take a value of another type is refused before (`graph.verify`)",
    ),
    "compiler.commit._elementwise: by hand: node.shape and node.shape != old.shape → False": (
        "equal",
        "operands of an elementwise node have its shape or none; a broadcast is a view, and is asked itself",
    ),
    "compiler.commit._late: without group.root in readers": (
        "never",
        "what nobody reads and is no result is no group",
    ),
    "compiler.contraction._Roles._columns: 1 → 2": ("speed", "other columns of the same sum"),
    "compiler.contraction._Roles._cost: always 0": ("speed", "other columns of the same sum"),
    "compiler.contraction._Roles._rows: if enough → False": ("speed", "other rows of the same sum"),
    "compiler.contraction._Roles._together: self.step(k, inner) * inner.extent → self.step(k, inner)": (
        "speed",
        "no two axes of a sum that can be evaluated in tiles move alike, so none are joined then",
    ),
    "compiler.contraction._step: without builder.flags = flags": (
        "speed",
        "whether LLVM may add up a short sum in vectors",
    ),
    "compiler.folds.FoldWriter._combined: without self.flags = ''": (
        "equal",
        "LLVM regroups by this flag alone only what is added up in a loop",
    ),
    "compiler.folds.FoldWriter.write_reduction: fold.folded * self._operations() → Add": (
        "speed",
        "other folds are written out",
    ),
    "compiler.folds._Fold._blocks: 1 → 2": ("speed", "shorter blocks of the same sum"),
    "compiler.folds._interleave: True → False": ("never", "there are as many terms as axes"),
    "compiler.forms.place_in: if not axes → True": (
        "speed",
        "everything lies in row-major order, for all who read it",
    ),
    "compiler.fuse.Fusion.product_of: without not self.stored(shown)": (
        "speed",
        "a view of a stored product computes the product again",
    ),
    "compiler.fuse._decide: if check.condition in readers → False": (
        "speed",
        "a value is stored or not, the same number",
    ),
    "compiler.fuse._group: sorted(reads, key=by_serial): as it is": (
        "text",
        "the order in which reads are printed",
    ),
    "compiler.fuse._limit_size: 1 → 0": ("speed", "expressions are cut a little later"),
    "compiler.fuse._readers_through: View | Gather → View": (
        "speed",
        "a value is stored or not, the same number",
    ),
    "compiler.fuse._reason_to_inline: if isinstance(form, View | Gather) → False": (
        "text",
        "a reason that is printed",
    ),
    "compiler.indices.Index.__add__: if not self.terms → False": ("speed", "the general way gives the same"),
    "compiler.layout._first_axis: 1 → 2": ("speed", "which sums are made in two steps"),
    "compiler.layout._swaps: if not isinstance(form, View) or node.inputs[0].ndim != node… → True": (
        "speed",
        "no product is turned",
    ),
    "compiler.llvm.NestFunction.kept: 0 → -1": ("speed", "whether LLVM writes out a short loop"),
    "compiler.loops._verify_index: without _verify_atoms(index, known, variables, title)": (
        "never",
        "a guard against a fault of the compiler itself",
    ),
    "compiler.loops.all_nests: if nest.body and isinstance(nest.body[0], Recurrence) → False": (
        "elsewhere",
        "where the C library's functions are not found in the process already",
    ),
    "compiler.loops.turns: 1 → 0": ("speed", "which loops are shared among threads"),
    "compiler.lower._Nest._start: without self._count = self._variables = self._axes = 0": (
        "text",
        "numbers in the names of values",
    ),
    "compiler.machine._binding: hasattr(held, 'acquire'): arguments exchanged": (
        "start",
        "nothing could be compiled",
    ),
    "compiler.machine._is_object: without sys.platform == 'win32' or code.startswith(b'\\xcf\\xfa\\xed…": (
        "elsewhere",
        "macOS and Windows",
    ),
    "compiler.machine.registers: 32 → 31 #3": ("elsewhere", "processors with NEON"),
    "compiler.mathlib.tanh: b.add(m, two): arguments exchanged": ("equal", "a sum"),
    "compiler.merge._Merger.__init__: 1 → 2": ("equal", "nests are numbered from 0"),
    "compiler.merge._Merger.answered: only.finite is not None → Is": (
        "speed",
        "a nest of its own asks whether the numbers are finite",
    ),
    "compiler.merge._Merger.partner: given.writes → reads #2": ("speed", "more nests are looked at"),
    "compiler.merge._Taken.__init__: 0 → -1": (
        "equal",
        "a nest that is no single loop is never joined with another",
    ),
    "compiler.merge._joined: by hand: statement.index.substitute(here) → Index.of(one.variable)": (
        "equal",
        "`_fits` lets nests be joined only if each store stands at the loop's own variable",
    ),
    "compiler.merge._note: known.setdefault(statement.detail, statement): arguments exchanged": (
        "speed",
        "a number is read from memory again",
    ),
    "compiler.merge._touched: without reads |= set(one.reads)": (
        "never",
        "NumPy's calls and loops over time come before all that writes over what they read",
    ),
    "compiler.module._Module.__init__: False → True": (
        "speed",
        "threads are started for steps that share nothing",
    ),
    "compiler.module._Module.nest: without not more": ("never", "a contraction is alone in its nest"),
    "compiler.module._Module.product: if any((mark in one for one in functions.values() for mark i… → True": (
        "text",
        "a declaration that nobody uses",
    ),
    "compiler.module.libraries: always 'f'": (
        "elsewhere",
        "where the C library's functions are not found in the process already",
    ),
    "compiler.nested.Nested.__init__: 1 → 0 #5": ("speed", "one column is packed as well"),
    "compiler.nested.Nested._cut_depth: 1 → 0 #8": (
        "equal",
        "the loops inside a tile have no more steps than the limit",
    ),
    "compiler.nested.Nested._set_tasks: 2 → 1 #2": ("speed", "more parts of the same sum"),
    "compiler.nested.Nested.shares: without self.tasks > 1": ("speed", "one task is given to the threads"),
    "compiler.nested._Driver._block: 1 → 0": (
        "equal",
        "nobody asks for the steps of a loop that is not there",
    ),
    "compiler.nested._Driver._computing: 1 → 2 #2": ("equal", "a sum that is cut has three blocks at least"),
    "compiler.nested._Driver._kept: True → False": ("never", "there are as many places as loops"),
    "compiler.nested._Driver._packing: w.multiply(number, p.width): arguments exchanged": (
        "equal",
        "a product",
    ),
    "compiler.nested._Task.divided: if divisor == 1 → False": ("speed", "a division by 1"),
    "compiler.nested._Task.moved: self.add(start, self.multiply(number, step)): arguments exchanged": (
        "equal",
        "a sum",
    ),
    "compiler.nested.suits: steps[0] == 0 → NotEq": ("speed", "sums go element by element"),
    "compiler.nests.NestWriter.__init__: 0 → -1": ("text", "numbers in the names of loops"),
    "compiler.nests.NestWriter._ways: not self.splits → self.splits": (
        "speed",
        "loops are not cut, and every element is chosen by a condition",
    ),
    "compiler.nests.NestWriter.read: always tuple((one if type(one) is Index else Index.of(one) for o…": (
        "speed",
        "a scalar is read once for each place that asks for it",
    ),
    "compiler.nests.NestWriter.strided: before - place.constant → before": (
        "speed",
        "loops are cut elsewhere; in each piece the conditions follow from its own range",
    ),
    "compiler.nests.NestWriter.useful_pieces: always found": ("speed", "loops are cut into more pieces"),
    "compiler.orders._Orders.__init__: without if not node.inputs": (
        "speed",
        "everything lies in row-major order",
    ),
    "compiler.orders._Orders._neighbours: by hand: node not in self.fixed or node.inputs → True": (
        "equal",
        "a node without inputs has no operands to go through",
    ),
    "compiler.orders._Orders._neighbours: without node not in self.fixed": (
        "equal",
        "a node without inputs has no operands to go through",
    ),
    "compiler.orders._Orders._spread: _AUTHORITY * elements(node) → _AUTHORITY": (
        "speed",
        "which order values have in memory",
    ),
    "compiler.orders._Orders._want: node not in self.known → In": (
        "speed",
        "which order values have in memory",
    ),
    "compiler.orders._Recorder.__call__: 0 → -1": ("equal", "only the place is looked at"),
    "compiler.orders._agreed: always 0": ("speed", "which order values have in memory"),
    "compiler.orders._moved: always None": ("speed", "which order values have in memory"),
    "compiler.orders._operands: all((_in(part, sums.right) for part in axis)) → any": (
        "speed",
        "which order values have in memory",
    ),
    "compiler.orders._read_maps: all(map(elements, node.inputs)) → any": (
        "speed",
        "which order values have in memory",
    ),
    "compiler.orders._row_major: 1 → 2": (
        "speed",
        "a value whose order is forgotten lies in row-major order for all who read it",
    ),
    "compiler.orders._row_major: by hand: moved == sorted(moved) → len(moved) < 3": (
        "speed",
        "a value whose order is forgotten lies in row-major order for all who read it",
    ),
    "compiler.orders.orders: if not any((_prefers(node) for node in nodes)) → True": (
        "speed",
        "everything lies in row-major order",
    ),
    "compiler.panels._transposed: always 4": ("speed", "a smaller alignment than there is"),
    "compiler.panels.packer_text: if way == 'across' → False": ("speed", "packed element by element"),
    "compiler.parts._Helper.__init__: without ''": ("elsewhere", "Pythons that do not know where they are"),
    "compiler.parts._Helper._talk: without self._answer.append(answer)": (
        "speed",
        "the part is made again in this process",
    ),
    "compiler.parts._Helper.end: without self._process.kill()": (
        "speed",
        "a process that nobody needs ends later",
    ),
    "compiler.parts._Helper.result: 0 → -1": ("equal", "there is one answer"),
    "compiler.parts._processors: 1 → 2": (
        "elsewhere",
        "systems that do not tell which processors a process may use",
    ),
    "compiler.parts.separate: 8 → 7 #2": ("equal", "no object file is that long"),
    "compiler.plan._Alive.add: always None #2": ("never", "a guard against a fault of the compiler itself"),
    "compiler.plan._allocate: max(total, buffer.offset + size): arguments exchanged": (
        "equal",
        "the larger of two",
    ),
    "compiler.plan.plan: 0 → -1": ("text", "numbers of buffers that are printed"),
    "compiler.polynomials._difference: b.add(found, taken): arguments exchanged": ("equal", "a sum"),
    "compiler.polynomials._power_of_two: b.add(n, b.literal(form.bias, form.integer)): arguments exchanged": (
        "equal",
        "a sum",
    ),
    "compiler.polynomials.erf: always 20": (
        "speed",
        "terms of the series that are too small to count in float32",
    ),
    "compiler.polynomials.log1p: b.multiply(_logarithm(b, u), b.divide(x, b.select(exact, …: arguments exchanged": (
        "equal",
        "a product",
    ),
    "compiler.polynomials.log2: b.multiply(_logarithm(b, x), b.literal(1 / math.log(2), x…: arguments exchanged": (
        "equal",
        "a product",
    ),
    "compiler.pool._FUTEX: 202 → 201": ("speed", "a thread without work goes on looking instead of sleeping"),
    "compiler.product.Product._tasks: if self.pack_left or self.panels < wanted → False": (
        "speed",
        "how work is cut for threads",
    ),
    "compiler.product.Product.left_scratch: 0 → 1": ("speed", "memory that nobody uses"),
    "compiler.product.Product.right_scratch: 0 → -1": ("equal", "memory is rounded up to whole vectors"),
    "compiler.product.Product.shares: 1 → 2": ("speed", "two tasks are not shared"),
    "compiler.product.Registers.tile_rows: self.count - vectors - 1 → self.count - vectors": (
        "speed",
        "rows of a tile",
    ),
    "compiler.product._Driver._computing: w.multiply(block, p.block_tiles): arguments exchanged": (
        "equal",
        "a product",
    ),
    "compiler.product._Driver._packer: always 'along' if p.right.common == 1 and columns == p.width els…": (
        "speed",
        "packed element by element",
    ),
    "compiler.product.even: one.left → right": (
        "never",
        "an operand that lies unevenly is stored first (`fuse`)",
    ),
    "compiler.recurrence._loops: without bool(node.inputs)": ("never", "a loop has operands"),
    "compiler.recurrence._part_of: not _loops(node.inputs[0]) → _loops(node.inputs[0])": (
        "speed",
        "results that nobody reads are computed",
    ),
    "compiler.recurrence._with_results: ahead or (bool(node.inputs) and node not in given) → and": (
        "speed",
        "more results are copied",
    ),
    "compiler.simplify._Simplifier.gated: if asked not in self.gates or not _is(uniform(node.inputs[1 … → True": (
        "speed",
        "less is simplified",
    ),
    "compiler.simplify._Simplifier.plain: if value is not None and np.isfinite(value) and (value != 0) → False": (
        "speed",
        "less is simplified",
    ),
    "compiler.simplify._Simplifier.rule: node.inputs[0] not in self.several → In": (
        "speed",
        "NumPy runs what could be written out",
    ),
    "compiler.simplify._is: number != 0 or not np.signbit(value) → and": ("speed", "less is simplified"),
    "compiler.simplify._key: if node.inputs → False": ("speed", "less is simplified"),
    "compiler.simplify._needed: value is None → IsNot": ("speed", "checks that hold always are made"),
    "compiler.simplify.uniform: while node.operation is not CONSTANT → False": (
        "speed",
        "less is simplified",
    ),
    "compiler.steps._Writing.__init__: 'layout' not in config.skip → In": (
        "speed",
        "which order values have in memory",
    ),
    "compiler.text.Writer.at: always self.put(f'getelementptr inbounds {kind}, ptr {pointer}, …": (
        "speed",
        "a step of 0 elements",
    ),
    "compiler.text.Writer.larger: without isinstance(y, int)": ("never", "the first number is never known"),
    "compiler.text.Writer.loop: stop <= step → Lt": ("speed", "a loop of one turn"),
    "compiler.text.Writer.rest: whole - part → Add": ("equal", "what is known and taken away is 0"),
    "compiler.tiles._summed: prod(map(int, steps)) * len(sums) <= _WRITTEN_OUT → Lt": (
        "speed",
        "which loops are written out",
    ),
    "compiler.vectors.declarations: kind == 'float' → NotEq": (
        "equal",
        "LLVM names its own functions by their types when it reads them",
    ),
    "runtime.memory._ALONE: 1 → 2": ("elsewhere", "Pythons that count references in another way"),
    "runtime.memory._HELD_ALONE: 1 → 0": ("elsewhere", "Pythons that count references in another way"),
    "runtime.memory._offset_holds: if sys.implementation.name != 'cpython' → False": (
        "elsewhere",
        "other Pythons",
    ),
    "runtime.program.Program.__init__: without self.compiled_now = False": (
        "text",
        "what tests ask of compiled steps",
    ),
    "runtime.program.Program._step: 0 → -1 #2": ("equal", "there is one"),
    "runtime.program.stand_alone: 0 → 1": ("equal", "nobody asks for the version of what nobody guards"),
    "runtime.served.Served.copies_of_state: part == 'array' or cell.grad is not None → and": (
        "speed",
        "a report measures with other numbers",
    ),
    "runtime.threads.Pool.__init__: 0 → -1 #3": ("speed", "one thread fewer is counted"),
    "runtime.threads.Pool._live: not stop.value → stop.value": (
        "elsewhere",
        "systems on which threads cannot sleep at a word",
    ),
    "runtime.threads.Pool.ring: without self._bell.notify_all()": (
        "elsewhere",
        "systems on which threads cannot sleep at a word",
    ),
    "runtime.threads.usable_cpus: 1 → 0 #2": ("never", "there is one processor at least"),
}
