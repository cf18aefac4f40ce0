"""Calls that do not fit: PyTorch's keywords with the reason, misspelt ones with ours, too many, too few."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.elsewhere import KEYWORDS
from chainrule.errors import ArgumentError, DtypeError, MissingNameError

W = [cr.tensor([1.0], requires_grad=True)]
X = cr.tensor([1.0, 2.0])

REFUSED = [
    (lambda: nn.Linear(3, 4, device="cuda"), r"Linear takes \(in_features, out_features, bias=True, "
     r"dtype=None\); got device='cuda'\. Tensors live in the memory of the CPU"),
    (lambda: nn.Embedding(3, 4, sparse=True), "got sparse=True. Gradients are dense"),
    (lambda: nn.Embedding(3, 4, max_norm=1.0), "got max_norm=1.0. Looking up does not change the table: clip"),
    (lambda: nn.Embedding(3, 4, scale_grad_by_freq=True), "Weigh the loss instead"),
    (lambda: nn.CrossEntropyLoss(size_average=True), "got size_average=True. Use reduction='mean' or reduction='sum'"),
    (lambda: nn.MSELoss(reduce=False), "got reduce=False. Use reduction='none'"),
    (lambda: nn.LayerNorm(3, device="cuda:0"), "got device='cuda:0'"),
    (lambda: optim.Adam(W, foreach=True), "Adam takes .*got foreach=True. There is one implementation of each update"),
    (lambda: optim.SGD(W, lr=0.1, fused=True), "got fused=True. Updates are fused by cr.compile"),
    (lambda: optim.lr_scheduler.StepLR(optim.SGD(W, lr=0.1), 5, gama=0.1), r"Did you mean gamma=\?"),
    (lambda: F.softmax(X, dtype=cr.float64), r"softmax takes \(x, axis=None, dim=None\); got dtype=.*Convert with"),
    (lambda: F.relu(X, inplace=True), r"relu takes .*got inplace=True\. Nothing is computed in place: leave it out"),
    (lambda: F.dropout(X, 0.5, inplace=True), "got inplace=True. Nothing is computed in place"),
    (lambda: F.dropout(X, device="cuda"), "dropout takes .*got device='cuda'"),
    (lambda: nn.Linear(3, 4, biass=False), r"got biass=False. Did you mean bias=\?"),
    (lambda: nn.BatchNorm1d(3, momentun=0.1), r"Did you mean momentum=\?"),
    (lambda: F.layer_norm(X, 2, epsilon=1e-3), r"layer_norm takes .*got epsilon=0.001. Did you mean eps=\?"),
    (lambda: nn.Dropout(colour=3), "got colour=3. Leave it out"),
    (lambda: nn.MSELoss(X, X), r"MSELoss takes .*got 2 arguments.*Make it first: MSELoss\(\)\(input, target\)"),
    (lambda: nn.MSELoss(size_average=False), r"MSELoss takes \(reduction='mean'\)"),
    (lambda: optim.lr_scheduler.StepLR(optim.SGD(W, lr=0.1), 5).step(0.3), r"step takes \(\); got 1 arguments"),
    (lambda: cr.fit(nn.Linear(1, 2), (X, X), epoch=3), r"help\(fit\) lists; got epoch=3\. Use epochs=…"),
    (lambda: cr.fit(nn.Linear(1, 2), (X, X), validation_split=0.1), r"Use validation=: a share, or \(X, y\)"),
    (lambda: cr.fit(nn.Linear(1, 2), (X, X), lr=0.1), "It belongs to the optimizer: optimizer="),
    (lambda: cr.fit(nn.Linear(1, 2), (X, X), patienc=1), r"Did you mean patience=\?"),
    (lambda: cr.fit(nn.Linear(1, 2), (X, X), device="cuda"), "Tensors live in the memory of the CPU"),
    (lambda: cr.predict(nn.Linear(1, 2), X, probabilities=True), r"Use run\.predict_proba\(X\)"),
    (lambda: cr.evaluate(nn.Linear(1, 2), (X, X), metric="f1"), r"Did you mean metrics=\?"),
    (lambda: cr.find_learning_rate(nn.Linear(1, 2), (X, X), end=1.0), r"Use high=…"),
    (lambda: nn.Linear(3), "got no out_features. Give it too"),
    (lambda: nn.Linear(), "got no in_features, out_features. Give them too"),
    (lambda: nn.Linear(1, 2, True, None, 5), "got 5 arguments without a name"),
    (lambda: nn.Linear(1, 2, in_features=3), "multiple values for argument 'in_features'. Give it once"),
    (lambda: nn.Sequential(nn.ReLU(), bias=True), r"Sequential takes \(\*layers\); got bias=True"),
    (lambda: F.softmax(), "got no x. Give it too"),
    (lambda: nn.Linear(2, 1)(X, X), r"a call of Linear takes \(x\); got 2 arguments without a name"),
    (lambda: nn.Sequential(nn.Linear(2, 1))(X, mask=1), r"a call of Sequential takes \(x\); got mask=1"),
    (lambda: nn.Linear(3, 4, device="x" * 80), r"got device='x{36}…\."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_call_that_does_not_fit_says_what_would(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        call()
    assert "test_keywords.py" in str(caught.value) and "__init__()" not in str(caught.value)


def test_values_that_ask_for_nothing_are_accepted() -> None:
    layer = nn.Linear(3, 4, device="cpu", dtype=None)
    assert layer.weight.shape == (4, 3)
    assert (
        nn.Embedding(
            3, 4, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
        ).num_embeddings
        == 3
    )
    assert F.softmax(X, dim=0, _stacklevel=3, dtype=None).tolist() == F.softmax(X).tolist()
    assert nn.MSELoss(size_average=None, reduce=None, reduction="sum").reduction == "sum"
    assert optim.Adam(W, lr=0.1, foreach=None, capturable=False, fused=None).param_groups[0]["lr"] == 0.1
    assert F.layer_norm(X, 2, device="cpu").shape == (2,)
    assert F.relu(X, inplace=False).tolist() == F.dropout(X, 0.0, inplace=False).tolist() == [1.0, 2.0]
    assert nn.BatchNorm1d(2, 1e-3, device=None).eps == 1e-3


def test_a_value_is_harmless_only_as_the_type_that_it_is() -> None:
    """0 == False and 1 == True, but they are not what was meant."""
    for wrong in (0, 1, "False", ""):
        with pytest.raises(ArgumentError, match="got sparse="):
            nn.Embedding(3, 4, sparse=wrong)


def test_subclasses_of_layers_are_told_as_well() -> None:
    class Narrow(nn.Linear):
        def __init__(self, **options: Any) -> None:
            super().__init__(3, 1, **options)

    assert Narrow(device="cpu").out_features == 1
    with pytest.raises(ArgumentError, match="got biass=True"):
        Narrow(biass=True)

    class Same(nn.Linear):
        pass

    with pytest.raises(ArgumentError, match=r"Linear takes .*got no in_features"):
        Same()


def test_what_users_write_keeps_pythons_errors() -> None:
    class Mine(nn.Module):
        def __init__(self, size: int) -> None:
            self.size = size

        def forward(self, x: Any) -> Any:
            return x.nonsense(3) if self.size else len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        Mine(width=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no len"):
        Mine(0)(X)
    with pytest.raises(TypeError, match="positional argument"):
        Mine(0)(X, X)


def test_an_error_inside_a_function_is_not_taken_for_a_misfit() -> None:
    with pytest.raises(DtypeError):
        F.linear(cr.ones(2, dtype="float64"), cr.ones((1, 2)))
    with pytest.raises(DtypeError, match="an array needs numbers; got None"):
        F.linear(cr.ones(2), None)  # type: ignore[arg-type]


def test_signatures_and_documentation_stay() -> None:
    import inspect

    assert list(inspect.signature(nn.Linear).parameters) == ["in_features", "out_features", "bias", "dtype"]
    assert nn.Linear.__init__.__qualname__ == "Linear.__init__"


def test_the_table_is_in_sentences_and_speaks_of_what_is_not_here() -> None:
    for name, keyword in KEYWORDS.items():
        assert keyword.advice[0].isupper() and not keyword.advice.endswith("."), name
    assert nn.Linear(1, 1).weight is not None and "device" in KEYWORDS
    with pytest.raises(
        AttributeError, match=r"Linear has no attribute 'cuda'\. Parameters live in the memory of the CPU"
    ):
        nn.Linear(1, 1).cuda()
    with pytest.raises(AttributeError, match="Use register_full_backward_hook"):
        nn.Linear(1, 1).register_backward_hook(print)


def test_layers_that_are_not_here_are_answered() -> None:
    for name, words in (
        ("BatchNorm3d", r"Use BatchNorm1d on x\.reshape"),
        ("Bilinear", "There is nothing of the kind yet"),
        ("functional", r"Use cr\.functional"),
        ("Nonsense", r"nn has no 'Nonsense'\. See dir\(nn\)"),
    ):
        with pytest.raises(AttributeError, match=words):
            getattr(nn, name)
    assert not hasattr(nn, "Conv3d") and nn.Linear(1, 1).to(device="cpu").to("cpu") is not None
    with pytest.raises(ArgumentError, match="the only device is 'cpu'; got 'cuda:0'"):
        nn.Linear(1, 1).to(device="cuda:0")


@pytest.mark.parametrize("look,words", [
    (lambda: F.one_hot, r"functional has no 'one_hot'\. Use cr\.eye"), (lambda: F.sofmax, "Did you mean 'softmax'"),
    (lambda: F.quux, r"See dir\(cr\.functional\)"), (lambda: cr.data.TensorDataset, r"Use arrays: DataLoader"),
    (lambda: nn.init.xavier_uniform, "Did you mean 'xavier_uniform_'"),
])  # fmt: skip
def test_names_that_a_room_lacks(look, words):
    with pytest.raises(MissingNameError, match=words):
        look()
    assert not hasattr(F, "one_hot")
