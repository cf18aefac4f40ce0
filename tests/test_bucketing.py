"""Buckets of sequences of like length: every row once, few shapes, an order that is a function of (seed, epoch)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.data import DataLoader, SequenceDataset
from chainrule.data.bucketing import padded_lengths
from chainrule.errors import ArgumentError


def words(lengths: Any, **options: Any) -> SequenceDataset:
    """Sequences that hold their own number, k + 1, with the target k."""
    return SequenceDataset(
        [[k + 1] * int(n) for k, n in enumerate(lengths)], np.arange(len(lengths)), **options
    )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=50),
    size=st.integers(1, 9),
    buckets=st.one_of(st.integers(1, 6), st.lists(st.integers(1, 70), min_size=1, max_size=4)),
    multiple=st.one_of(st.none(), st.integers(1, 16)),
    shuffle=st.booleans(),
    workers=st.sampled_from([0, 2]),
    part=st.booleans(),
)
def test_every_row_comes_once_in_few_shapes(
    lengths: list[int], size: int, buckets: Any, multiple: int | None, shuffle: bool, workers: int, part: bool
) -> None:
    data: Any = words(lengths)
    rows = np.arange(len(lengths))
    if part:
        rows = rows[: max(1, len(rows) // 2)][::-1]
        data = data.subset(rows)
    options = {"shuffle": shuffle, "seed": 3, "bucket_by_length": buckets, "pad_to_multiple_of": multiple}
    loader = DataLoader(data, size, num_workers=workers, **options)
    count = buckets if isinstance(buckets, int) else len(buckets) + 1
    shapes = set()
    for epoch in (1, 2):
        batches = [((v.numpy(), n.numpy()), y.numpy()) for (v, n), y in loader]
        assert len(batches) == len(loader) and all(len(y) == size for _, y in batches[:-1])
        assert sorted(np.concatenate([y for _, y in batches]).tolist()) == sorted(rows.tolist())
        for (values, kept), y in batches:
            shapes |= {values.shape} if len(y) == size else set()
            longest = max(lengths[k] for k in rows)
            assert values.shape[1] >= kept.max() and (
                multiple is None or values.shape[1] % multiple == 0 or values.shape[1] == longest
            )
            for row, n, k in zip(values, kept, y):
                assert n == lengths[k] and (row[:n] == k + 1).all() and not row[n:].any()
        again = DataLoader(data, size, **options)
        again.set_epoch(epoch)
        for ((values, kept), y), ((other, same), z) in zip(batches, again, strict=True):
            assert (
                values.tolist() == other.tolist()
                and kept.tolist() == same.tolist()
                and y.tolist() == z.tolist()
            )
        skipped = [one.targets.tolist() for one in loader.epoch(epoch, 1)]
        assert skipped == [y.tolist() for _, y in batches[1:]]
    assert len(shapes) <= count


def test_epochs_differ_and_batches_come_in_another_order() -> None:
    loader = DataLoader(words(np.tile(np.arange(1, 9), 8)), 4, shuffle=True, bucket_by_length=4)
    orders = [loader.order(epoch).tolist() for epoch in (1, 2, 3)]
    assert len(set(map(tuple, orders))) == 3
    lengths = [[values.shape[1] for (values, _), _ in loader] for _ in range(3)]
    assert any(one != sorted(one) for one in lengths) and sorted(lengths[0]) == sorted(lengths[1])
    plain = DataLoader(words(np.tile(np.arange(1, 9), 8)), 4, shuffle=True)
    waste = [sum(v.size - int(n.sum().item()) for (v, n), _ in one) for one in (loader, plain)]
    assert waste[0] < waste[1] / 2


def test_the_fingerprint_knows_the_buckets() -> None:
    data = words([1, 5, 9, 20])
    options: list[dict[str, Any]] = [
        {}, {"bucket_by_length": 2}, {"bucket_by_length": 3}, {"bucket_by_length": [5]}, {"pad_to_multiple_of": 4},
        {"bucket_by_length": 2, "pad_to_multiple_of": 8},
    ]  # fmt: skip
    assert len({DataLoader(data, 2, **one).fingerprint() for one in options}) == len(options)
    assert (
        DataLoader(data, 2, bucket_by_length=[5]).fingerprint()
        == DataLoader(data, 2, bucket_by_length=(5,)).fingerprint()
    )


class Last(nn.Module):
    """Whether the last token is large, from the state at each sequence's own end."""

    def __init__(self) -> None:
        cr.manual_seed(0)
        self.table, self.net, self.out = nn.Embedding(99, 4), nn.GRU(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, values: Any, lengths: Any) -> Any:
        _, last = self.net(self.table(values), lengths=lengths)
        return self.out(last[0])


def labelled(rows: int = 48) -> SequenceDataset:
    random = np.random.default_rng(0)
    sequences = [random.integers(1, 99, random.integers(1, 40)) for _ in range(rows)]
    return SequenceDataset(sequences, [int(one[-1] > 50) for one in sequences], multiple_of=1)


def test_a_compiled_training_meets_no_more_shapes_than_buckets() -> None:
    compiled: list[Any] = []

    def fit(**options: Any) -> Any:
        loader = DataLoader(labelled(), 8, shuffle=True, drop_last=True, **options)
        return cr.fit(Last(), loader, epochs=3, compile=True, progress=False)

    run = fit(bucket_by_length=3)
    compiled = [one for one in run._engine._kinds.values() if one.compiled is not None]
    assert 1 <= len(compiled) <= 3 and len(run.history) == 3


def test_fit_makes_the_batches_that_a_loader_makes(tmp_path: Path) -> None:
    for options in (
        {"bucket_by_length": 3},
        {"bucket_by_length": np.array([16, 40])},
        {"pad_to_multiple_of": 8},
    ):
        runs = []
        for data, held, more in (
            (labelled(), 0.25, options),
            (
                DataLoader(labelled().split(0.25)[0], 8, shuffle=True, **options),
                labelled().split(0.25)[1],
                {},
            ),
        ):
            model = Last()
            run = cr.fit(
                model, data, validation=held, batch_size=8, epochs=2, compile=False, progress=False,
                folder=tmp_path / f"{len(list(tmp_path.iterdir()))}", **more,
            )  # fmt: skip
            weights = b"".join(one.numpy().tobytes() for one in model.state_dict().values())
            runs.append((weights, [one["validation_loss"] for one in run.history]))
        assert runs[0] == runs[1], options


def test_a_stopped_training_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    class Stop(cr.Callback):
        def on_batch_end(self, run: Any, batch: dict[str, float]) -> None:
            if batch["step"] == 8:
                os.kill(os.getpid(), signal.SIGINT)

    def train(folder: Any, epochs: int = 4, resume: bool = False, callbacks: Any = ()) -> tuple[bytes, Any]:
        model = Last()
        loader = DataLoader(labelled(), 7, shuffle=True, seed=5, bucket_by_length=3)
        run = cr.fit(
            model, loader, optimizer=optim.Adam(model.parameters()), epochs=epochs, folder=folder, resume=resume,
            callbacks=callbacks, progress=False, compile=False,
        )  # fmt: skip
        return b"".join(one.numpy().tobytes() for one in model.state_dict().values()), run

    wanted, _ = train(tmp_path / "whole")
    _, stopped = train(tmp_path / "run", callbacks=[Stop()])
    assert stopped.state == "interrupted" and len(stopped.history) == 1
    got, run = train(tmp_path / "run", resume=True)
    assert len(run.history) == 4 and got == wanted


@pytest.mark.parametrize("buckets", [0, -1, True, "three", 2.5, [0, 4], [1.5], [True], {3}])
def test_buckets_that_mean_nothing_are_refused(buckets: Any) -> None:
    with pytest.raises(ArgumentError, match="bucket_by_length must be a number of buckets from 1"):
        DataLoader(words([1, 2, 3]), bucket_by_length=buckets)


def test_only_sequences_have_buckets() -> None:
    x = np.zeros((4, 3))
    for data in ((x, np.zeros(4)), x):
        with pytest.raises(ArgumentError, match=r"Write DataLoader\(data.SequenceDataset"):
            DataLoader(data, bucket_by_length=2)
    with pytest.raises(ArgumentError, match=r"buckets are for sequences.*Use data.SequenceDataset"):
        DataLoader(cr.data.TextWindows("abc" * 20, 4), bucket_by_length=2)
    kinds: list[Any] = [
        (x, np.zeros(4)),
        cr.data.TextWindows("abc" * 20, 4),
        DataLoader((x, np.zeros(4))),
        [(x, x)],
    ]
    for one in kinds:
        for option in ("bucket_by_length", "pad_to_multiple_of"):
            with pytest.raises(ArgumentError, match=f"{option} is for sequences of different lengths"):
                cr.fit(nn.Linear(3, 2), one, progress=False, **{option: 2})
    for buckets in (0, "three", [0, 4]):
        with pytest.raises(ArgumentError, match="bucket_by_length must be a number of buckets from 1"):
            cr.fit(Last(), labelled(), bucket_by_length=buckets, progress=False)  # type: ignore[arg-type]
    for wrong in (0, 1.5, True):
        with pytest.raises(ArgumentError, match="pad_to_multiple_of must be a whole number from 1"):
            DataLoader(words([1, 2]), pad_to_multiple_of=wrong)  # type: ignore[arg-type]
    assert padded_lengths(np.array([4, 4, 4]), 5, None) == (4,)
