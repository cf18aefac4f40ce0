"""The same for gradients: set, taken away, changed in place, kept in a second place, read before and after a step."""

from __future__ import annotations

import types

import chainrule as cr
from chainrule import nn, optim
from state_idioms import idiom


def _leaf(*values):
    return cr.tensor(list(values or (1.0, 2.0)), requires_grad=True)


def _network():
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def _nothing(call):
    """No change from outside."""


def _changing(change):
    """A step that does something to the gradient after `backward`."""
    weight = _leaf()

    def step(x):
        (weight * x).sum().backward()
        change(weight)
        return x * 1.0

    return step, _nothing, lambda: weight.grad


@idiom
def gradient_copied_into():
    def change(weight):
        with cr.no_grad():
            weight.grad.copy_(weight.grad * 0.5)

    return _changing(change)


@idiom
def gradient_with_an_entry_set():
    return _changing(lambda weight: weight.grad.__setitem__(0, 0.0))


@idiom
def gradient_added_to_under_another_name():
    def change(weight):
        found = weight.grad
        found += 1.0

    return _changing(change)


@idiom
def gradient_scaled_by_assignment():
    def change(weight):
        weight.grad *= 0.5

    return _changing(change)


@idiom
def gradient_scaled_in_a_function():
    def scale(gradient, factor):
        with cr.no_grad():
            gradient.copy_(gradient * factor)

    return _changing(lambda weight: scale(weight.grad, 0.25))


@idiom
def gradient_cleared_in_place_before():
    weight = _leaf()

    def step(x):
        if weight.grad is not None:
            with cr.no_grad():
                weight.grad.copy_(weight.grad * 0.0)
        (weight * x).sum().backward()
        return x * 1.0

    return step, _nothing, lambda: weight.grad


@idiom
def gradient_kept_and_then_changed_outside():
    weight, o = _leaf(), types.SimpleNamespace(held=None)

    def step(x):
        (weight * x).sum().backward()
        o.held = weight.grad
        return x * 1.0

    def change(call):
        with cr.no_grad():
            o.held.copy_(o.held * 0.0)

    return step, change, lambda: (weight.grad, o.held, o.held is weight.grad)


@idiom
def gradient_kept_and_then_changed_inside():
    weight, o = _leaf(), types.SimpleNamespace(held=None)

    def step(x):
        (weight * x).sum().backward()
        o.held = weight.grad
        with cr.no_grad():
            o.held.copy_(o.held * 0.5)
        return weight.grad * 1.0

    return step, _nothing, lambda: (weight.grad, o.held)


@idiom(answers=("refused",))
def gradient_that_is_held_outside_and_changed_under_that_name():
    weight, o = _leaf(), types.SimpleNamespace(held=None)

    def step(x):
        if o.held is not None:
            with cr.no_grad():
                o.held.copy_(o.held + x)
        (weight * x).sum().backward()
        return x * 1.0

    return step, lambda call: setattr(o, "held", weight.grad), lambda: (weight.grad, o.held)


@idiom
def gradient_changed_in_place_while_a_stranger_holds_it():
    weight, held = _leaf(), []
    (weight * 1.0).sum().backward()
    keep = iter([weight.grad])

    def step(x):
        with cr.no_grad():
            weight.grad.copy_(weight.grad * 0.5 + x)
        return x * 1.0

    def change(call):
        held.extend(keep)

    return step, change, lambda: (weight.grad, held, [one is weight.grad for one in held])


@idiom
def gradient_found_returned_and_taken_away():
    weight, o = _leaf(), types.SimpleNamespace(last=None)

    def step(x):
        found = weight.grad
        weight.grad = None
        (weight * x).sum().backward()
        return x * 0.0 if found is None else found

    return step, lambda call: setattr(o, "last", weight.grad), lambda: (weight.grad, o.last)


@idiom
def gradient_taken_away_unread():
    weight, other = _leaf(), _leaf(3.0, 1.0)

    def step(x):
        weight.grad = None
        (other * x).sum().backward()
        return x * 1.0

    return step, lambda call: (weight * 2.0).sum().backward(), lambda: (weight.grad, other.grad)


@idiom
def gradients_zeroed_and_nothing_else():
    model = _network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        return model(x).detach()

    return (
        step,
        lambda call: model(cr.ones(2)).sum().backward(),
        lambda: [one.grad for one in model.parameters()],
    )


@idiom
def gradients_of_a_part_zeroed():
    model = _network()

    def step(x):
        model.zero_grad()
        cr.mean(model[0](x) ** 2).backward()
        return x * 1.0

    def change(call):
        (model[2].weight.sum() * 3.0).backward()

    return step, change, lambda: [one.grad for one in model.parameters()]


@idiom
def gradients_exchanged():
    weight, other = _leaf(), _leaf(3.0, 1.0)

    def step(x):
        (weight * other * x).sum().backward()
        weight.grad, other.grad = other.grad, weight.grad
        return x * 1.0

    return step, _nothing, lambda: (weight.grad, other.grad)


@idiom
def gradients_exchanged_while_one_is_held():
    weight, other = _leaf(), _leaf(3.0, 1.0)
    (weight * other).sum().backward()
    held = [weight.grad, other.grad]

    def step(x):
        weight.grad, other.grad = other.grad, weight.grad
        return x * 1.0

    def change(call):
        weight.grad[0] = call + 0.5

    return step, change, lambda: (weight.grad, other.grad, held, [one is weight.grad for one in held])


@idiom
def gradient_put_back():
    weight = _leaf()

    def step(x):
        found = weight.grad
        weight.grad = None
        (weight * x).sum().backward()
        new = weight.grad * 1.0
        if found is not None:
            found[0] = 7.0
            weight.grad = found
        return new

    return step, _nothing, lambda: weight.grad


@idiom
def one_gradient_for_two():
    weight, other = _leaf(), _leaf()

    def step(x):
        (weight * x).sum().backward()
        other.grad = weight.grad
        return x * 1.0

    def change(call):
        with cr.no_grad():
            other.grad.copy_(other.grad * 0.5)

    return step, change, lambda: (weight.grad, other.grad, weight.grad is other.grad)


@idiom
def argument_as_a_gradient():
    weight, o = _leaf(), types.SimpleNamespace(x=cr.tensor([0.5, 0.25]))
    optimizer = optim.SGD([weight], lr=0.5)

    def step(x):
        weight.grad = o.x
        optimizer.step()
        return (weight * x).detach()

    return step, _nothing, lambda: (weight, weight.grad, weight.grad is o.x)


@idiom
def gradients_scaled_through_groups():
    weight, factor = _leaf(), [1.0]
    optimizer = optim.SGD([weight], lr=0.5)

    def step(x):
        (weight * x).sum().backward()
        for group in optimizer.param_groups:
            for one in group["params"]:
                one.grad = one.grad * factor[0]
        optimizer.step()
        return weight.detach()

    def change(call):
        factor[0] *= 0.5
        if call == 2:
            weight.grad = None

    return step, change, lambda: (weight, weight.grad)


@idiom
def gradients_added_up_over_two_calls():
    model, o = _network(), types.SimpleNamespace(n=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x):
        loss = cr.mean(model(x) ** 2)
        loss.backward()
        o.n += 1
        if o.n % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return step, _nothing, lambda: [[one, one.grad] for one in model.parameters()]


@idiom
def old_gradients_in_a_list():
    weight, olds = _leaf(), []

    def step(x):
        if weight.grad is not None:
            olds.append(weight.grad * 1.0)
        weight.grad = None
        (weight * x).sum().backward()
        return x * float(len(olds))

    return step, lambda call: olds.clear() if call == 2 else None, lambda: (weight.grad, list(olds))


@idiom
def steps_that_follow_differences_of_gradients():
    weight, o = _leaf(), types.SimpleNamespace(weight=None, gradient=None)

    def step(x):
        weight.grad = None
        ((weight - x) ** 2).sum().backward()
        gradient, rate = weight.grad.detach() * 1.0, cr.tensor(0.1)
        if o.weight is not None:
            change = gradient - o.gradient
            rate = ((weight.detach() - o.weight) * change).sum() / ((change**2).sum() + 1e-6)
        o.weight, o.gradient = weight.detach() * 1.0, gradient
        with cr.no_grad():
            weight.copy_(weight - rate * gradient)
        return weight.detach()

    return (
        step,
        lambda call: setattr(o, "weight", None) if call == 3 else None,
        lambda: (weight, o.weight, o.gradient),
    )


@idiom(answers=("refused",))
def one_gradient_of_two_leaves_that_is_changed():
    weight, other = _leaf(), _leaf(3.0, 1.0)
    (weight * 2.0).sum().backward()
    other.grad = weight.grad

    def step(x):
        weight.grad[0] = 7.0
        return other.grad * x

    return step, _nothing, lambda: (weight.grad, other.grad)
