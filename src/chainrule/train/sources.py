"""Where the batches of a training come from: arrays, checked and cast at once, or batches, checked as they come.

Knows models by the dtype and the outputs that they have; knows nothing of optimizers and of epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import nn
from ..data.arrays import as_arrays, map_leaves, named_leaves
from ..data.bucketing import dataset_source
from ..data.datasets import (
    AugmentedSource,
    Dataset,
    DatasetSource,
    is_dataset,
    is_items,
    pair_of,
    read_items,
    stacked,
    without_augmentation,
)
from ..data.holding import held_back_rows
from ..data.sources import ArraySource, Batch, IterableSource, Source, at_batch
from ..data.weights import as_sample_weight, class_weights
from ..errors import ArgumentError, ChainruleError, DataError
from ..tensor import Tensor
from ..tensor.random import Generator
from .losses import Loss
from .problem import (
    EVALUATION_ROWS,
    Array,
    Problem,
    call_model,
    first_rows,
    inputs_for,
    measure,
    model_dtype,
    present_leaves,
    refuse_one_class,
    rows_of,
    run_model,
    targets_for,
    tensor_of,
)

DEFAULT_SHARE = 0.2

# With a step of the user's own there may be no loss for the rows held back: only metrics are measured.
NO_LOSS = Loss("none", lambda outputs, targets: tensor_of(np.zeros(())), None, "custom")


class Sources(NamedTuple):
    """Batches to train on, rows held back in batches (or None), and whether predictions have the shape (rows,)."""

    training: Source
    validation: Source | None
    flat: bool


class Weighing(NamedTuple):
    """How much rows count: a number for each row, a rule for each class, both None for equal weights."""

    sample_weight: Any = None
    class_weight: Any = None


class Batching(NamedTuple):
    """What is done to batches: a random change of their inputs, and lengths that sequences are filled up to."""

    augment: Any = None
    bucket_by_length: int | Sequence[int] | None = None
    pad_to_multiple_of: int | None = None

    def refuse_for(self, data: Any) -> None:
        """Raise ArgumentError for data that are no sequences of different lengths, if these are to be filled up."""
        for name in ("bucket_by_length", "pad_to_multiple_of"):
            if getattr(self, name) is not None:
                raise ArgumentError(
                    f"{name} is for sequences of different lengths; got {type(data).__name__}. Give fit a "
                    f"data.SequenceDataset(sequences, targets), or a DataLoader of one, made with {name}="
                )


def is_source(data: Any) -> bool:
    """Whether the data are batches already: a DataLoader, or anything with its methods."""
    return isinstance(data, Source)


def make_sources(
    model: nn.Module,
    problem: Problem,
    data: Any,
    validation: Any,
    batch_size: int,
    seed: int,
    weighing: Weighing,
    batching: Batching,
) -> Sources:
    """What is trained on and what is held back. Faults of arrays are found here, those of batches as they come."""
    preparation = getattr(data, "preparation", None)
    data, validation = _paired(data), _held_paired(validation)
    if is_dataset(data):
        if weighing.sample_weight is not None:
            raise ArgumentError(
                "sample_weight goes with arrays (X, y); got a data set. Write DataLoader(dataset, sample_weight=…)"
            )
        parts = _parts(data, _share(validation), seed)
        validation = parts[1] if len(parts) > 1 else validation
        preparation = parts[0].preparation
        if _is_large(parts[0]):
            return _from_dataset(model, problem, parts[0], validation, batch_size, seed, weighing, batching)
        batching.refuse_for(parts[0])
        data = parts[0].arrays()
    batching.refuse_for(data)
    if not is_pair(data):
        if batching.augment is not None:
            raise ArgumentError(
                "augment goes with arrays (X, y) and data sets; got batches. Write DataLoader(…, augment=…)"
            )
        return _from_batches(model, problem, data, validation, weighing)
    source, held_back, flat = _from_arrays(model, problem, data, validation, batch_size, seed, weighing)
    source.preparation = preparation
    augment = batching.augment
    changed = source if augment is None else AugmentedSource(source, augment, seed)
    return Sources(changed, held_back, flat)


def _paired(data: Any) -> Any:
    """Items one by one as arrays (X, y), an object that gives batches as their source; anything else as it is."""
    if isinstance(data, list) and len(data) > 1 and all(map(_is_single_row, data)):
        return pair_of(stacked(data, "list"), "list")
    return pair_of(read_items(data), type(data).__name__) if is_items(data) else data


def _is_single_row(item: Any) -> bool:
    """Whether an item is a row with its target and no batch: targets of a batch have an axis."""
    return isinstance(item, tuple) and len(item) == 2 and np.ndim(item[1]) == 0


def _held_paired(validation: Any) -> Any:
    """Rows held back, as `_paired`; an object that gives batches, such as a loader of PyTorch's, is a source."""
    found = _paired(validation)
    known = found is None or isinstance(found, bool | int | float | str | tuple | list | np.ndarray | dict)
    if known or is_source(found) or is_dataset(found) or hasattr(found, "iloc") or isinstance(found, Tensor):
        return found
    return IterableSource(found) if hasattr(found, "__iter__") or callable(found) else found


def _from_arrays(
    model: nn.Module,
    problem: Problem,
    data: Any,
    validation: Any,
    batch_size: int,
    seed: int,
    weighing: Weighing,
) -> tuple[ArraySource, Source | None, bool]:
    """Of arrays (X, y), checked and cast at once: batches, those held back, whether predictions are (rows,)."""
    if problem.lenient:
        return _untried(model, data, validation, batch_size, seed)
    x = inputs_for(model, data[0])
    rows = rows_of(x)
    probe = run_model(model, first_rows(x, 2))
    y = targets_for(problem, data[1], probe, rows)
    weights = None if weighing.sample_weight is None else as_sample_weight(weighing.sample_weight, rows)
    held: Rows | None = None
    training = Rows(x, y, weights)
    share = _share(validation)
    if share:
        training, held = _hold_back(problem, training, share, Generator(seed))
    refuse_one_class(problem, training.targets)
    rule = _class_rule(problem, weighing.class_weight, training.targets, probe)
    source = ArraySource(
        training.inputs,
        training.targets,
        _combined(training, rule),
        batch_size=batch_size,
        seed=seed,
        drop_last=_has_lone_row(model, rows_of(training.inputs), batch_size),
    )
    if held is not None:
        validated: Source | None = evaluation_source(held.inputs, held.targets, _combined(held, rule))
    else:
        validated = _given(model, problem, validation, probe, rule)
    return source, validated, is_flat(data[1], probe)


def _untried(
    model: nn.Module, data: Any, validation: Any, batch_size: int, seed: int
) -> tuple[ArraySource, Source | None, bool]:
    """Arrays (X, y) for a step of the user's own, which alone knows how the model is called: nothing is held back."""
    if validation not in (None, False, DEFAULT_SHARE):
        raise ArgumentError(
            "rows held back go through the model and the loss; got validation= beside a step whose model takes or "
            "returns others. Give loss=None or a loss that fits, or validation=None and measure in a callback"
        )
    x, y = floats_as(model, as_arrays(data[0], "X")), floats_as(model, as_arrays(data[1], "y"))
    return ArraySource(x, y, None, batch_size=batch_size, seed=seed), None, False


def floats_as(model: nn.Module, arrays: Any) -> Any:
    """Arrays whose floats have the model's dtype; others stay what they are."""
    dtype = model_dtype(model)
    return map_leaves(
        arrays, lambda leaf, _: leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf, "X"
    )


# A data set of at most so many bytes is trained on as arrays, of which many batches go into one native call.
_MOST_BYTES = 256 << 20


def _is_large(data: Dataset) -> bool:
    size = data.size_in_memory
    return size is None or size > _MOST_BYTES


def _parts(data: Dataset, share: float, seed: int) -> tuple[Dataset, ...]:
    """The part of a data set to train on, and the part that is held back, if any."""
    if not len(data):
        raise DataError(f"training needs rows; got {type(data).__name__} without any. Check how it was made")
    return data.split(share, seed=seed) if share else (data,)


def _from_dataset(
    model: nn.Module,
    problem: Problem,
    data: Dataset,
    validation: Any,
    batch_size: int,
    seed: int,
    weighing: Weighing,
    batching: Batching,
) -> Sources:
    """Batches of a data set whose rows are made when they are asked for."""
    rule = weighing.class_weight
    if data.targets is not None:
        labels = np.asarray(data.targets)
        refuse_one_class(problem, labels)
        if isinstance(rule, str):
            rule = class_weights(rule, labels, int(labels.max()) + 1).tolist()
    drop = _has_lone_row(model, len(data), batch_size)
    lengths = (batching.bucket_by_length, batching.pad_to_multiple_of)
    source: Any = dataset_source(data, *lengths, batch_size, True, seed, drop)
    if batching.augment is not None:
        source = AugmentedSource(source, batching.augment, seed)
    if isinstance(rule, str):
        raise _uncounted()
    training = Prepared(model, problem, source, rule)
    held = is_source(validation) or is_dataset(validation) or isinstance(validation, tuple | list)
    return Sources(training, _held_beside(model, problem, validation, rule) if held else None, False)


def _uncounted() -> ArgumentError:
    return ArgumentError(
        "class_weight='balanced' counts the classes of arrays (X, y); got batches. Give a dict from class to weight"
    )


def plain_source(data: Any) -> Source:
    """Batches to evaluate with: those of a source without random changes, or those of a data set in its order."""
    if is_dataset(data):
        return DatasetSource(data, shuffle=False)
    return without_augmentation(data)


def _has_lone_row(model: nn.Module, rows: int, batch_size: int) -> bool:
    """Whether the last batch is of one row, whose variance BatchNorm cannot take; another row in every epoch."""
    return (
        1 < batch_size < rows
        and rows % batch_size == 1
        and any(isinstance(one, nn.BatchNorm1d) for one in model.modules())
    )


class Rows(NamedTuple):
    """Arrays with as many rows each."""

    inputs: Any
    targets: Any
    weights: Array | None


def is_pair(data: Any) -> bool:
    """Whether data are inputs and targets, (X, y)."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    # A list of two tuples is a list of two batches.
    return isinstance(data, tuple) or not all(isinstance(one, tuple) for one in data)


def is_flat(y: Any, outputs: Any) -> bool:
    """Whether targets have the shape (rows,) where the model has one output for each."""
    return np.ndim(y) == 1 and isinstance(outputs, np.ndarray) and outputs[0].size == 1


def evaluation_source(inputs: Any, targets: Any, weights: Array | None = None) -> ArraySource:
    """Batches of rows in their order, for evaluation."""
    return ArraySource(inputs, targets, weights, batch_size=EVALUATION_ROWS, shuffle=False)


def evaluate_source(
    model: nn.Module,
    problem: Problem,
    source: Source,
    weighted: bool = False,
    call: Callable[[Any, Any], Any] = call_model,
) -> dict[str, float]:
    """Loss and metrics of all rows of a source. Weights act on the loss; on the metrics too if `weighted`.

    call: what calls the model.
    """
    outputs, targets = [], []
    weights: list[Any] = []
    for batch in source.epoch(1):
        outputs.append(run_model(model, batch.inputs, call))
        targets.append(batch.targets)
        weights.append(batch.weights)
    if not outputs:
        raise DataError("evaluation needs a batch at least; got none. Check where the batches come from")
    weight: Array | None = None if weights[0] is None else np.concatenate(weights)
    found, wanted = joined(outputs), joined(targets)
    if weight is None or weighted:
        return scores(problem, found, wanted, weight)
    plain = measure(problem, found, wanted)
    return {**plain, "loss": measure(Problem(problem.function, {}), found, wanted, weight)["loss"]}


def scores(problem: Problem, outputs: Any, targets: Any, weights: Array | None) -> dict[str, float]:
    """Loss and metrics of all rows; without the loss where there is none."""
    found = measure(problem, outputs, targets, weights)
    if problem.function is NO_LOSS:
        del found["loss"]
    return found


def joined(parts: list[Any]) -> Any:
    """Arrays of batches (or tuples and dicts of them) as those of all rows."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    columns = [iter([leaf for _, leaf in present_leaves(part)]) for part in parts]

    def whole(leaf: Any, _: str) -> Any:
        return None if leaf is None else np.concatenate([next(one) for one in columns])

    return map_leaves(parts[0], whole, "y")


# ------------------------------------------------------------------------------------------- rows held back


def _share(validation: Any) -> float:
    """The share of rows to hold back; 0 where rows are given, or none are wanted."""
    if (
        validation is None
        or validation is False
        or is_source(validation)
        or is_dataset(validation)
        or isinstance(validation, tuple | list)
    ):
        return 0.0
    if isinstance(validation, bool) or not isinstance(validation, int | float) or not 0 <= validation < 1:
        raise ArgumentError(
            f"validation must be a share from 0 to below 1, a pair (X, y) or a DataLoader; got {_shown(validation)}"
        )
    return float(validation)


def _shown(value: Any) -> str:
    """A value as a message can hold it."""
    shape = getattr(value, "shape", None)
    text = repr(value)
    return f"{type(value).__name__} {shape}" if shape else text if len(text) <= 40 else type(value).__name__


def _hold_back(problem: Problem, rows: Rows, share: float, generator: Generator) -> tuple[Rows, Rows]:
    count = rows_of(rows.inputs)
    by_label = problem.kind in ("classes", "binary") and isinstance(rows.targets, np.ndarray)
    labels = rows.targets if by_label and rows.targets.size == count else np.zeros(count)
    chosen = held_back_rows(labels.reshape(-1), share, generator)
    if not 0 < chosen.sum() < count:
        raise DataError(f"a validation share of {share:g} needs more rows; got {count}. Use validation=None")
    return _take(rows, ~chosen), _take(rows, chosen)


def _take(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    def part(leaf: Array, _: str) -> Array:
        return leaf[chosen]

    return Rows(
        map_leaves(rows.inputs, part, "X"),
        map_leaves(rows.targets, part, "y"),
        None if rows.weights is None else rows.weights[chosen],
    )


def _given(
    model: nn.Module, problem: Problem, validation: Any, probe: Any, rule: Array | None
) -> Source | None:
    """The rows that the user holds back: (X, y), (X, y, weights), or batches."""
    if is_source(validation) or is_dataset(validation):
        return Prepared(model, problem, plain_source(validation), None if rule is None else rule.tolist())
    if not isinstance(validation, tuple | list):
        return None
    if len(validation) not in (2, 3):
        raise ArgumentError(
            f"validation must be a share, a pair (X, y) or a DataLoader; got {len(validation)} things"
        )
    x = inputs_for(model, validation[0])
    rows = rows_of(x)
    run_model(model, first_rows(x, 2))
    y = targets_for(problem, validation[1], probe, rows)
    weights = as_sample_weight(validation[2], rows) if len(validation) == 3 else None
    held = Rows(x, y, weights)
    return evaluation_source(x, y, _combined(held, rule))


# ------------------------------------------------------------------------------------------- weights


def _class_rule(problem: Problem, class_weight: Any, labels: Any, outputs: Any) -> Array | None:
    """The weight of each class, from the labels of the training rows."""
    if class_weight is None:
        return None
    if problem.kind not in ("classes", "binary") or not isinstance(labels, np.ndarray):
        raise ArgumentError(
            f"class_weight needs a loss of classes; got one of {problem.kind}. Use sample_weight for anything else"
        )
    whole = labels.dtype.kind in "iu" or bool((labels == np.floor(labels)).all())
    if labels.size != len(labels) or not whole:
        raise ArgumentError(
            f"class_weight needs one class for each row; got targets of {labels.dtype.name} {labels.shape}. Use "
            "sample_weight for anything else"
        )
    known = labels.reshape(-1).astype(np.int64)
    return class_weights(class_weight, known, 2 if problem.kind == "binary" else outputs.shape[1])


def _combined(rows: Rows, rule: Array | None) -> Array | None:
    """Sample weight times class weight of each row."""
    if rule is None:
        return rows.weights
    found: Array = rule[rows.targets.reshape(-1).astype(np.int64)]
    return found if rows.weights is None else rows.weights * found


# ------------------------------------------------------------------------------------------- batches as they come


def _from_batches(
    model: nn.Module, problem: Problem, data: Any, validation: Any, weighing: Weighing
) -> Sources:
    if weighing.sample_weight is not None:
        raise ArgumentError(
            "sample_weight goes with arrays (X, y); got batches. Yield (x, y, weights), or write "
            "DataLoader((X, y), sample_weight=…)"
        )
    share = _share(validation)
    if share and share != DEFAULT_SHARE:
        raise ArgumentError(
            f"a share is held back from arrays (X, y) only; got batches and validation={share:g}. Give "
            "validation=(X, y) or a DataLoader"
        )
    if isinstance(weighing.class_weight, str):
        raise _uncounted()
    source = data if is_source(data) else IterableSource(data)
    training = Prepared(model, problem, source, weighing.class_weight)
    held: Source | None = None
    if is_source(validation) or is_dataset(validation) or isinstance(validation, tuple | list):
        held = _held_beside(model, problem, validation, weighing.class_weight)
    return Sources(training, held, False)


def _held_beside(model: nn.Module, problem: Problem, validation: Any, class_weight: Any) -> Source:
    if is_source(validation) or is_dataset(validation):
        source = plain_source(validation)
    else:
        x, y, *rest = validation
        source = IterableSource([(x, y, *rest)])
    return Prepared(model, problem, source, class_weight)


class Prepared:
    """Batches of a source, each checked and cast as the model and the loss need it when it comes."""

    def __init__(self, model: nn.Module, problem: Problem, source: Source, class_weight: Any = None) -> None:
        self._model = model
        self._problem = problem
        self._source = source
        self._class_weight = class_weight
        self._rule: Array | None = None
        self._outputs: Any = None
        self._dtypes: list[Any] = []
        self.rows = source.rows
        self.batches = source.batches
        self.preparation = getattr(source, "preparation", None)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` without the first `skip`."""
        for place, batch in enumerate(self._source.epoch(number, skip), skip + 1):
            try:
                prepared = self._taken(batch) if self._problem.lenient else self._prepared(batch)
            except DataError as error:
                raise at_batch(error, place, number) from error
            yield prepared

    def fingerprint(self) -> str:
        """What the source says of itself."""
        return self._source.fingerprint()

    def _taken(self, batch: Batch) -> Batch:
        """A batch for a step of the user's own, which alone knows how the model is called."""
        try:
            return self._prepared(batch)
        except ChainruleError:
            targets = None if batch.targets is None else floats_as(self._model, batch.targets)
            return batch._replace(inputs=floats_as(self._model, batch.inputs), targets=targets)

    def _prepared(self, batch: Batch) -> Batch:
        if self._outputs is None:
            self._meet(batch)
        kinds = iter(self._dtypes)
        inputs = map_leaves(batch.inputs, lambda leaf, _: leaf.astype(next(kinds), copy=False), "X")
        if batch.targets is None:
            return batch._replace(inputs=inputs)
        targets = targets_for(self._problem, batch.targets, self._outputs, batch.rows)
        rows = Rows(inputs, targets, batch.weights)
        return Batch(inputs, targets, _combined(rows, self._rule), batch.rows)

    def _meet(self, batch: Batch) -> None:
        """The first batch decides what integers become; the model would be asked again and again otherwise."""
        inputs = inputs_for(self._model, batch.inputs)
        self._outputs = run_model(self._model, first_rows(inputs, 2))
        self._dtypes = [leaf.dtype for _, leaf in named_leaves(inputs, "X")]
        if self._class_weight is not None:
            count = 2 if self._problem.kind == "binary" else self._outputs.shape[1]
            self._rule = _class_rule(self._problem, self._class_weight, np.arange(count), self._outputs)
