"""`chainrule bench`: what it measures has the promised form, in both languages; and the page tells what was kept."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli import main
from chainrule.cli.bench import growth, machine, page, probe, record, timing
from chainrule.cli.bench.engines import ENGINES, OURS, Prepared, own
from chainrule.cli.bench.table import Teller, duration
from chainrule.cli.bench.workloads import WORKLOADS, Layered, Sequences, Workload
from chainrule.language import catalogue

ROOT = Path(__file__).resolve().parent.parent
RIVALS = [
    pytest.param(name, marks=getattr(pytest.mark, name))
    for name in ENGINES
    if name not in (OURS, "torch_compile")
]


def command(capsys, *arguments):
    """(exit code, output, errors) of `chainrule bench` in this process."""
    code = main(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One quick record of a tiny network, as it is kept."""
    place = tmp_path_factory.mktemp("bench") / "record.json"
    given = ["--sizes", "5,4,3", "--batch", "6", "--norm", "--epoch", "--engines", "chainrule"]
    assert main(["bench", *given, "--quick", "--json", "--out", str(place)]) == 0
    return json.loads(place.read_text(encoding="utf-8"))


def check_times(found):
    assert found["median"] > 0 and found["least"] <= found["median"] and len(found["samples"]) == 3
    assert found["quartiles"][0] <= found["median"] <= found["quartiles"][1]


def test_the_record_has_its_form(quick):
    assert quick["format"] == record.FORMAT and quick["effort"] == {"rounds": 3, "seconds": 0.01}
    assert quick["machine"]["threads"] >= 1 and quick["machine"]["packages"]["numpy"] == np.__version__
    (one,) = quick["workloads"]
    workload = Workload.from_json(one["workload"])
    assert (
        workload == Layered("sizes", 6, sizes=(5, 4, 3), norm=True) and workload.as_json() == one["workload"]
    )
    ours = one["engines"][OURS]
    assert ours["status"] == record.MEASURED and ours["apart"] == 0
    assert len(ours["losses"]) == 3 and all(map(math.isfinite, ours["losses"]))
    for way in ("call", "epoch"):
        check_times(ours[way])
    assert one["ratios"] == {"call": None, "epoch": None}
    floor = one["floor"]
    assert 0 < floor["call"] < floor["seconds"]
    assert min(*floor["products"].values(), *floor["memory"].values()) > 0
    if sys.platform == "linux":
        assert 0 <= one["load"]["foreign"] <= 1.5 and isinstance(one["load"]["disturbed"], bool)


def test_it_speaks_both_languages(capsys, quick):
    for language in ("en", "ko"):
        code, out, err = command(
            capsys, "--sizes", "5,4,3", "--engines", "chainrule", "--quick", "--lang", language
        )
        assert code == 0
        (heading,) = {catalogue()["bench.title_call"][language]}
        assert heading in out and "sizes: 5-4-3, batch 32, float32, Adam" in out
        assert catalogue()["bench.measuring"][language].partition("{")[0] in err
    english, korean = ("\n".join(Teller(one).machine(quick)) for one in ("en", "ko"))
    assert english != korean


def test_what_is_not_installed_is_said(capsys, monkeypatch):
    find = importlib.util.find_spec
    absent = ("torch", "jax", "sklearn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    code, out, _ = command(capsys, "--sizes", "5,3", "--quick", "--sklearn")
    assert code == 0
    assert out.count("not installed") >= 3 and "scikit-learn is not installed" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sizes", "5"], "--sizes takes at least two widths"),
        (["--sizes", "5,0"], "--sizes takes at least two widths"),
        (["--sizes", "5,3", "--batch", "x"], "--batch takes a whole number"),
        (["--sizes", "5,3", "--batch", "1", "--norm"], "--batch must be at least 2"),
        (["--batch", "8"], "--batch describes the network of --sizes"),
        (["--norm"], "--norm describes the network of --sizes"),
        (["--sizes", "5,3", "--dtype", "float16"], "float32, float64"),
        (["--sizes", "5,3", "--optimizer", "adm"], "Did you mean adam?"),
        (["mlp_tyni"], "Did you mean mlp_tiny?"),
        (["--engines", "tourch"], "--engines takes one of"),
        (["--growth", "hight"], "--growth takes one of"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--out", "no/such/folder/x.json"], "--out needs a file that can be written"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(capsys, arguments, told):
    code, out, err = command(capsys, *arguments)
    assert (code, out) == (2, "") and told in err
    code, _, err = command(capsys, *arguments, "--lang", "ko")
    assert code == 2 and "오류" in err and told not in err.replace("float32, float64", "")


# ------------------------------------------------------------------------------------------- engines


SMALL_IMAGE = Layered("image", 5, sizes=(12, 7, 3), image=(2, 8, 8), channels=(4, 3))
SEQUENCES = [
    Sequences(name, 3, network=name, width=8, length=6, vocabulary=11, layers=2, heads=2)
    for name in ("rnn", "lstm", "gpt")
]
STEPS = [
    SMALL_IMAGE,
    *SEQUENCES,
    WORKLOADS["odd_tiny"],
    WORKLOADS["odd_float64"],
    Layered("norm", 7, sizes=(6, 5, 4, 3), norm=True),
]


@pytest.fixture
def jax_as_it_was():
    """JAX's width of floats is a setting of the whole process."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", False)


@pytest.mark.parametrize("workload", STEPS, ids=lambda one: one.name)
@pytest.mark.parametrize("rival", RIVALS)
def test_rivals_take_the_same_steps(workload, rival, jax_as_it_was):
    ours, theirs = own.prepare(workload), ENGINES[rival].prepare(workload)
    for _ in range(5):
        a, b = ours.number(ours.step()), theirs.number(theirs.step())
        assert a == pytest.approx(b, rel=record.TOLERANCE if workload.dtype == "float32" else 1e-9)
    for one in (ours, theirs):
        back, run = one.keep(), one.epoch()
        now = one.number(one.step())
        run()
        back()
        assert one.number(one.step()) == now


def test_a_rival_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("pytorch", "torch_compile", "jax"):
        for used in (ENGINES[name].load, lambda name=name: ENGINES[name].prepare(STEPS[0])):
            with pytest.raises(
                cr.MissingExtraError, match=r"it is not installed\. Use pip install (torch|jax)"
            ):
                used()


def test_our_step_is_the_networks_own():
    """The first loss is that of the formula, and the steps learn."""
    workload = Layered("one", 8, "float64", "sgd", sizes=(5, 4, 3))
    weights, (x, y) = workload.weights(), workload.data()
    hidden = np.maximum(x @ weights["0.weight"].T + weights["0.bias"], 0)
    scores = hidden @ weights["2.weight"].T + weights["2.bias"]
    expected = (np.log(np.exp(scores).sum(1)) - scores[np.arange(8), y]).mean()
    prepared = own.prepare(workload)
    losses = [prepared.number(prepared.step()) for _ in range(20)]
    assert losses[0] == pytest.approx(expected, rel=1e-12) and losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("workload", [SMALL_IMAGE, *SEQUENCES], ids=lambda one: one.name)
def test_images_and_sequences_run_as_machine_code_alone(workload):
    prepared = own.prepare(workload)
    prepared.step()
    report = prepared.compiled.report()
    assert report.native_share == 1.0 and report.host_operations == ()


def test_an_epoch_in_one_call_is_as_many_calls():
    workload = Layered("one", 8, sizes=(5, 4, 3), norm=True)
    ours, other = own.prepare(workload), own.prepare(workload)
    for one in (ours, other):
        one.step()
    found = np.asarray(ours.epoch()()).ravel()
    batches = zip(*workload.batches(workload.epoch))
    assert found.tolist() == [other.compiled(cr.tensor(x), cr.tensor(y)).item() for x, y in batches]


def test_without_compiling_it_measures_python(capsys, monkeypatch):
    monkeypatch.setattr(cr.config, "compile", False)
    code, out, _ = command(capsys, "--sizes", "5,3", "--engines", "chainrule", "--quick", "--epoch")
    assert code == 0 and "chainrule did not compile" in out and "chainrule: a loop of calls" in out


def test_the_counts_of_a_workload():
    tiny = WORKLOADS["mlp_tiny"]
    assert tiny.parameters == 64 * 32 + 32 + 32 * 10 + 10
    # Products: of weights twice (forward, gradient), of inputs once where there is something to learn below.
    assert tiny.flops == 2 * 32 * (2 * 64 * 32 + 3 * 32 * 10)
    assert tiny.state_bytes == 2 * 4 * tiny.parameters
    assert WORKLOADS["mlp_small"].state_bytes == 6 * 4 * WORKLOADS["mlp_small"].parameters
    assert [one.kind for one in Layered("n", 2, sizes=(3, 3, 2), norm=True).layers()] == [
        "linear",
        "norm",
        "relu",
        "linear",
    ]


def rival(step):
    """An engine that takes `step` for one, in the place of PyTorch."""
    return SimpleNamespace(
        installed=True, ours=False, shown="rival",
        prepare=lambda workload: Prepared(step, float, lambda: step, lambda: lambda: None, "calls"),
    )  # fmt: skip


def test_a_rival_that_computes_something_else_is_a_finding(capsys, monkeypatch):
    monkeypatch.setitem(ENGINES, "pytorch", rival(lambda: 1.0))
    given = ("--sizes", "5,3", "--engines", "chainrule,pytorch", "--quick")
    code, out, _ = command(capsys, *given, "--json")
    assert code == 1
    (one,) = json.loads(out)["workloads"]
    assert one["engines"]["pytorch"]["status"] == record.DISAGREES and "call" not in one["engines"]["pytorch"]
    assert one["ratios"]["call"] is None
    code, out, _ = command(capsys, *given)
    assert code == 1 and "the first losses of PyTorch eager differ from ours" in out


def test_a_rival_that_fails_is_reported_and_the_rest_is_measured(capsys, monkeypatch):
    def fail():
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setitem(ENGINES, "pytorch", rival(fail))
    code, out, _ = command(capsys, "--sizes", "5,3", "--engines", "chainrule,pytorch", "--quick", "--json")
    assert code == 0
    (one,) = json.loads(out)["workloads"]
    assert one["engines"]["pytorch"] == {"status": "failed", "reason": "RuntimeError: no C++ compiler"}
    assert one["engines"][OURS]["status"] == record.MEASURED


def test_a_process_of_its_own_tells_first_step_and_memory():
    cold, cached = probe.ask(OURS, Layered("one", 6, sizes=(5, 4, 3)))
    for one in (cold, cached):
        assert one["first_step"] > 0 and one["import"] > 0 and math.isfinite(one["loss"])
    assert cold["loss"] == cached["loss"]
    if sys.platform == "linux" and cold["memory"] is not None:
        assert 0 < cold["memory"]["above_import"] < cold["memory"]["peak"]


def test_a_process_that_dies_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "executable", sys.executable)
    monkeypatch.setattr(probe, "_START", "raise SystemExit('gone')")
    assert probe.ask(OURS, WORKLOADS["mlp_tiny"], 1) == [{"failed": "gone"}]


# ------------------------------------------------------------------------------------------- figures


def test_turns_are_taken_alternately():
    seen: list[str] = []
    found = timing.in_turns(
        {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, timing.Effort(4, 1e-4)
    )
    assert [len(one) for one in found.values()] == [4, 4]
    turns = [seen[0], *(b for a, b in itertools.pairwise(seen) if a != b)]
    # Counting runs first, a b; then a b, b a, a b, b a, of which neighbours are one.
    assert turns == list("abababa")


def test_a_first_run_that_compiles_does_not_count():
    waits = iter([0.05])
    counts: list[int] = []

    def run():
        counts.append(1)
        time.sleep(next(waits, 0.0))

    timing.in_turns({"a": run}, timing.Effort(1, 0.01))
    assert len(counts) > 20


def test_every_turn_begins_with_what_is_asked():
    seen: list[str] = []
    timing.in_turns(
        {"a": lambda: seen.append("run")}, timing.Effort(3, 1e-4), {"a": lambda: seen.append("back")}
    )
    assert seen.count("back") == 3 and seen[-1] == "run"


def test_what_is_far_too_slow_gets_fewer_rounds(monkeypatch):
    monkeypatch.setattr(timing, "_PATIENCE", 0)
    assert len(timing.in_turns({"a": int}, timing.Effort(9, 1e-4))["a"]) == 3


def test_what_is_told_of_samples():
    found = timing.told([4.0, 1.0, 2.0, 3.0], 2)
    assert found == {
        "median": 1.25,
        "quartiles": [0.875, 1.625],
        "least": 0.5,
        "samples": [2.0, 0.5, 1.0, 1.5],
    }
    assert timing.told([3.0])["quartiles"] == [3.0, 3.0]
    compared = timing.ratio(timing.told([1.0, 2.0, 1.0]), timing.told([3.0, 4.0, 5.0]))
    assert compared["median"] == 3.0 and compared["quartiles"] == [2.5, 4.0]


def test_the_line_through_growth():
    assert growth.line([1, 2, 4], [3.0, 5.0, 9.0])["each"] == pytest.approx(2)
    bent = growth.line([1, 2, 3, 4], [1.0, 4.0, 9.0, 16.0])
    assert bent["explained"] < 0.97 and bent["worst"] > 0.2


def test_growth_is_measured(capsys):
    code, out, _ = command(capsys, "--growth", "depth", "--quick", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["workloads"] == []
    (one,) = found["growth"]
    assert [point["size"] for point in one["points"]] == [1, 2, 4, 8]
    functions = [point["first"]["functions"] for point in one["points"]]
    nests = [point["first"]["nests"] for point in one["points"]]
    # Equal layers are compiled once: nests grow with the depth, functions hardly.
    assert nests[3] > 2 * nests[0] and functions[3] < 2 * functions[0]
    assert Teller("en").growth(found)[0].rows[-1][0] == "8"


def test_digits_beside_scikit_learn(capsys):
    pytest.importorskip("sklearn")
    code, out, _ = command(capsys, "--sklearn", "--quick", "--json")
    assert code == 0
    found = json.loads(out)["sklearn"]
    assert all(one["median"] > 0 and one["accuracy"] > 0.7 for one in found["engines"].values())


def test_foreign_load_is_noticed(monkeypatch):
    now = machine._now()
    if now is None:
        pytest.skip("this system does not tell what others take")
    load = machine.Load()
    later = machine._Moment(
        load._start.clock + 10, load._start.busy + 8, load._start.stolen, load._start.own + 2
    )
    monkeypatch.setattr(machine, "_now", lambda: later)
    monkeypatch.setattr(machine, "_processors", lambda: {0, 1})
    assert load.told() == {"foreign": pytest.approx(0.3), "stolen": 0.0, "disturbed": True}
    monkeypatch.setattr(machine, "_now", lambda: None)
    assert load.told() is None


def test_durations_are_short():
    shown = [duration(one) for one in (4.56e-7, 9.96e-6, 1.5e-4, 0.0123, 0.25, 3, 123.4)]
    assert shown == ["0.456 µs", "9.96 µs", "150 µs", "12.3 ms", "250 ms", "3.00 s", "123 s"]
    assert duration(5e-4, 2e-3) == "0.5"


# ------------------------------------------------------------------------------------------- the page


def records():
    return runpy.run_path(str(ROOT / "benchmarks" / "training_step.py"))["records"]()


def test_the_page_tells_what_was_kept():
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    kept = records()
    assert set(kept) == {"training_step", "networks", "growth", "sklearn"}
    assert page.updated(text, kept) == text, "run: python benchmarks/training_step.py --docs"


@pytest.mark.parametrize("name", page.HEADINGS)
def test_the_page_says_where_we_lose(name):
    kept = records()[name]
    for one in kept["workloads"]:
        for way, compared in one["ratios"].items():
            sentences = [
                line for line in Teller("en").losses(kept) if line.startswith(f"{one['workload']['name']}:")
            ]
            way_told = {"call": "one step a call", "epoch": "many steps in a row"}[way]
            assert any(way_told in line for line in sentences) is (compared["median"] < 1)


def test_a_loss_is_told():
    def engine(call, first, peak):
        memory = {"peak": peak, "above_import": peak}
        return {"call": {"median": call}, "fresh": [{"first_step": first, "memory": memory}] * 2}

    told = Teller("en").losses({
        "workloads": [{
            "workload": {"name": "w"}, "ratios": {"call": {"best_rival": "jax", "median": 0.5}},
            "engines": {OURS: engine(2.0, 1.0, 3e6), "jax": engine(1.0, 0.5, 2e6)},
        }]
    })  # fmt: skip
    assert told[0] == "w: JAX jit is 2.00x as fast as chainrule, one step a call"
    assert len(told) == 5 and "2 MB" in told[3]
    assert Teller("en").losses({"workloads": []}) == ["nowhere in these tables"]
