"""The same for networks and optimizers: what is loaded, cleared, copied, tied, hooked and set between the calls."""

from __future__ import annotations

import copy
import types

import chainrule as cr
from chainrule import nn, optim
from state_idioms import idiom


def _network():
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def _learning(model, optimizer):
    def step(x):
        loss = cr.mean(model(x) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _weights(*models):
    return lambda: [one for model in models for one in model.parameters()]


@idiom
def moments_that_are_cleared():
    model = _network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    return _learning(model, optimizer), lambda i: optimizer.state.clear() if i == 3 else None, _weights(model)


@idiom
def moments_of_one_parameter_that_are_deleted():
    model = _network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def change(i):
        if i == 3:
            del optimizer.state[model[0].weight]

    return _learning(model, optimizer), change, _weights(model)


@idiom
def moments_that_are_loaded():
    model = _network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    before = copy.deepcopy(optimizer.state_dict())
    return (
        _learning(model, optimizer),
        lambda i: optimizer.load_state_dict(before) if i == 2 else None,
        _weights(model),
    )


@idiom
def weights_that_are_loaded():
    model = _network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    return (
        _learning(model, optim.Adam(model.parameters(), lr=0.1)),
        lambda i: model.load_state_dict(before) if i % 2 else None,
        _weights(model),
    )


@idiom
def target_that_is_loaded_inside():
    online, target, o = _network(), _network(), types.SimpleNamespace(n=0)
    learn = _learning(online, optim.SGD(online.parameters(), lr=0.1))

    def step(x):
        loss = learn(x) + cr.mean(target(x)).detach()
        o.n += 1
        if o.n % 2 == 0:
            target.load_state_dict(online.state_dict())
        return loss

    return step, lambda i: None, _weights(online, target)


@idiom
def copy_of_plain_state():
    o = types.SimpleNamespace(kept={"h": cr.zeros(2)})

    def step(x):
        before = copy.deepcopy(o.kept)
        o.kept["h"] = o.kept["h"] * 0.5 + x
        return before["h"] + o.kept["h"]

    return step, lambda i: None, lambda: o.kept


@idiom(answers=("refused",))
def copy_of_a_layer_inside():
    model = _network()
    return lambda x: copy.deepcopy(model)(x).detach(), lambda i: None, lambda: None


@idiom
def parameter_group_that_is_added():
    model, scale = _network(), nn.Parameter(cr.ones(2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    learn = _learning(lambda x: model(x) * scale, optimizer)

    def change(i):
        if i == 2:
            optimizer.add_param_group({"params": [scale], "lr": 0.01})

    return learn, change, lambda: [*model.parameters(), scale]


@idiom
def layers_that_are_frozen():
    model = _network()

    def change(i):
        for one in model[0].parameters():
            one.requires_grad_(i % 2 == 1)
        for one in model.parameters():
            one.grad = None

    return _learning(model, optim.SGD(model.parameters(), lr=0.1)), change, _weights(model)


@idiom
def weights_that_are_tied():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    return _learning(model, optim.SGD(model.parameters(), lr=0.1)), lambda i: None, _weights(model)


@idiom
def hooks_that_come_and_go():
    model, handles = _network(), []

    def change(i):
        if i in (0, 3):
            handles.append(model[0].register_forward_hook(lambda module, given, out: out * 2.0))
        if i == 2:
            handles.pop().remove()

    return lambda x: model(x).detach(), change, lambda: None


@idiom
def modes_that_change_inside():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5))

    def step(x):
        model.eval()
        calm = model(x)
        model.train()
        return (calm + model(x)).detach()

    return step, lambda i: None, lambda: model.training


@idiom
def slow_weights():
    model, o = _network(), types.SimpleNamespace(n=0)
    slow = [one.detach().clone() for one in model.parameters()]
    learn = _learning(model, optim.SGD(model.parameters(), lr=0.1))

    def step(x):
        loss = learn(x)
        o.n += 1
        if o.n % 2 == 0:
            with cr.no_grad():
                for k, one in enumerate(model.parameters()):
                    slow[k] = slow[k] + 0.5 * (one - slow[k])
                    one.copy_(slow[k])
        return loss

    return step, lambda i: None, lambda: [*model.parameters(), *slow]


@idiom
def two_networks_against_each_other():
    maker, judge = _network(), _network()
    makes, judges = optim.Adam(maker.parameters(), lr=0.1), optim.Adam(judge.parameters(), lr=0.1)

    def step(x):
        made = maker(x)
        loss = cr.mean((judge(x) - 1.0) ** 2) + cr.mean(judge(made.detach()) ** 2)
        judges.zero_grad()
        loss.backward()
        judges.step()
        other = cr.mean((judge(maker(x)) - 1.0) ** 2)
        makes.zero_grad()
        other.backward()
        makes.step()
        return loss.detach() + other.detach()

    return step, lambda i: None, _weights(maker, judge)


@idiom
def flag_of_a_leaf_that_the_step_sets():
    o = types.SimpleNamespace(learns=True)
    weight = cr.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        weight.requires_grad_(o.learns)
        return x + (weight * 1.0).detach()

    def change(i):
        o.learns = i not in (1, 3)

    return step, change, lambda: (weight, weight.requires_grad)


@idiom
def flag_of_a_leaf_that_another_step_sets():
    weight = cr.tensor([1.0, 2.0], requires_grad=True)
    freeze = cr.compile(lambda on: (weight.requires_grad_(False), on * 2.0)[1])

    def step(x):
        y = weight * x
        return y.detach() * (3.0 if y.requires_grad else 5.0)

    def change(i):
        if i == 2:
            freeze(cr.ones(1))
        if i == 3:
            weight.requires_grad_(True)

    return step, change, lambda: weight.requires_grad
