"""cr.save and cr.load: every bit back or a clear error; nested state; files of others; disks that refuse."""

import errno
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, DtypeError, RunError
from chainrule.train import load, save
from chainrule.train.files import from_bytes, to_bytes


def network(seed=0):
    cr.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))


def nested():
    return {
        "model": network().state_dict(),
        "optimizer": {"groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}], "state": {0: {"step": 7}}},
        "numbers": [0, -1, 2**53 + 1, -(2**64), 10**5000, 0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan],
        "texts": ["", "한글", "\ud800", "a\0b", '{"tensor": "x"}'],
        "other": (None, True, False, [], {}, (), {"": {-3: {2**70: 1}}}),
        "arrays": [np.arange(6).reshape(2, 3).T, np.zeros((0, 2)), np.array(True), cr.tensor(1.5, dtype=cr.float64)],
    }  # fmt: skip


def same(one, other):
    """Whether a state came back: types, order of keys, bits."""
    if isinstance(one, np.ndarray | cr.Tensor):
        array = one.detach().numpy() if isinstance(one, cr.Tensor) else one
        assert isinstance(other, cr.Tensor) and other.dtype == array.dtype and other.shape == array.shape
        return np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(other.numpy()).tobytes()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


# ------------------------------------------------------------------------------------------- there and back


def test_weights_survive_a_file(tmp_path):
    path = tmp_path / "가중치.safetensors"
    model, other = network(seed=1), network(seed=2)
    save(path, model.state_dict())
    assert other.load_state_dict(load(path)) == ([], [])
    np.testing.assert_array_equal(other[2].bias.detach().numpy(), model[2].bias.detach().numpy())
    tensors = {
        "scalar": cr.tensor(1.5, dtype=cr.float64),
        "turned": np.arange(6).reshape(2, 3).T,
        "flag": cr.tensor([True]),
    }
    save(path, tensors)
    back = load(path)
    assert all(same(tensors[name], back[name]) for name in tensors)
    assert os.listdir(tmp_path) == [path.name]


def test_nested_state_survives_a_file_with_every_bit(tmp_path):
    path = tmp_path / "state"
    state = nested()
    save(path, state)
    back = load(path)
    assert same(state, back)
    save(tmp_path / "again", back)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "state",
    [
        {}, [], (), 3, None, 1.5, True, {"a": 1}, [cr.ones(2)], cr.ones(2), np.ones(2),
        {"a.b": cr.ones(1), "a": {"b": cr.zeros(1)}},
        {"__metadata__": cr.ones(1)}, {"a\nb": cr.ones(1)}, {"\ud800": cr.ones(1)}, {1: cr.ones(1), "1": cr.zeros(1)},
        {"uint64": np.array([2**64 - 1], np.uint64), "int8": np.array([-128], np.int8)},
    ],
    ids=repr,
)  # fmt: skip
def test_states_of_many_forms(state):
    assert same(state, from_bytes(to_bytes(state), "state"))


def test_numbers_of_numpy_become_pythons():
    state = {"a": np.float32(0.1), "b": np.int64(3), "c": np.bool_(True), "d": np.float64(-0.0)}
    back = from_bytes(to_bytes(state), "state")
    assert back == {"a": float(np.float32(0.1)), "b": 3, "c": True, "d": 0.0}
    assert [type(one) for one in back.values()] == [float, int, bool, float] and math.copysign(
        1, back["d"]
    ) == -1


def test_tensors_lie_in_the_file_under_their_dotted_names(tmp_path):
    files = pytest.importorskip("safetensors.numpy")
    save(tmp_path / "a", {"model": network().state_dict(), "epoch": 3, "moments": [cr.ones(2)]})
    found = files.load_file(tmp_path / "a")
    assert set(found) == {"model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias", "moments.0"}


def test_pytorch_reads_the_file_and_writes_one_that_is_read(torch, tmp_path):
    files = pytest.importorskip("safetensors.torch")
    save(tmp_path / "ours", network().state_dict())
    theirs = files.load_file(tmp_path / "ours")
    assert list(theirs) == list(load(tmp_path / "ours")) and theirs["0.weight"].shape == (16, 2)
    torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).load_state_dict(
        theirs
    )
    weight = theirs["0.weight"]
    files.save_file(
        {"half": weight.half(), "brain": weight.bfloat16()}, tmp_path / "theirs", {"format": "pt"}
    )
    back = load(tmp_path / "theirs")
    for name, converted in {"half": weight.half(), "brain": weight.bfloat16()}.items():
        assert back[name].dtype == cr.float32
        np.testing.assert_array_equal(back[name].numpy(), converted.float().numpy())
    files.save_file({"tiny": weight.to(torch.float8_e5m2)}, tmp_path / "theirs")
    with pytest.raises(DtypeError, match="load has no dtype F8_E5M2; got it for 'tiny'"):
        load(tmp_path / "theirs")


def test_the_order_of_arguments_of_pytorch(tmp_path):
    save({"a": cr.ones(1)}, tmp_path / "x")
    save({"a": 1}, str(tmp_path / "y"))
    assert load(tmp_path / "x")["a"].tolist() == [1] and load(tmp_path / "y") == {"a": 1}


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("state", [network().state_dict(), nested()], ids=["flat", "nested"])
def test_no_damaged_copy_loads_with_other_numbers(state):
    whole = to_bytes(state)
    state = from_bytes(whole, "whole")
    generator = np.random.default_rng(0)
    head = 8 + struct.unpack_from("<Q", whole)[0]
    places = [*generator.integers(0, len(whole), 60), *generator.integers(0, head, 60)]
    refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(0, 8))
        try:
            back = from_bytes(bytes(damaged), "damaged")
        except (RunError, DtypeError):
            refused += 1
            continue
        # What was hit is neither a number nor a name, such as a space or the name of the checksum.
        assert same(state, back)
    assert refused > 100


def test_every_bit_of_the_header_of_a_small_nested_file():
    state = {"a": cr.tensor([1.0, 2.0]), "b": (1, -0.0, "x", None)}
    whole = to_bytes(state)
    for place in range(8 + struct.unpack_from("<Q", whole)[0] + 8):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            try:
                back = from_bytes(bytes(damaged), "damaged")
            except (RunError, DtypeError):
                continue
            assert same(state, back), (place, bit, bytes(damaged))


def test_truncated_files():
    whole = to_bytes(nested())
    for cut in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(RunError, match="needs a whole safetensors file; got 'cut'"):
            from_bytes(whole[:cut], "cut")
    with pytest.raises(RunError, match="needs a whole safetensors file"):
        from_bytes(whole + b"\0", "longer")


def rebuilt(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_tampered_files():
    whole = to_bytes({"a": cr.tensor([1.0]), "epoch": 3})
    size = struct.unpack_from("<Q", whole)[0]
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    assert same({"a": cr.tensor([1.0]), "epoch": 3}, from_bytes(rebuilt(header, data), "rebuilt"))
    words = "whose numbers do not match its checksum"
    with pytest.raises(RunError, match=words):
        from_bytes(rebuilt(header, struct.pack("<f", 2.0)), "number")
    record = json.loads(header["__metadata__"]["chainrule"])
    for change in (
        {**record, "state": record["state"].replace("3", "4")},
        {**record, "state": "[" * 100_000},
        {"state": record["state"]},
        {**record, "state": 3},
        [],
    ):
        changed = {**header, "__metadata__": {"chainrule": json.dumps(change)}}
        with pytest.raises(RunError, match=words):
            from_bytes(rebuilt(changed, data), "structure")
    header["b"] = header.pop("a")
    with pytest.raises(RunError, match=words):
        from_bytes(rebuilt(header, data), "name")


def entry(**changes):
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


@pytest.mark.parametrize("data", [
    struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 10**9) + b"{}" * 100, rebuilt(b"[" * 200_000), rebuilt(b"null"),
    rebuilt(b"{" + b'"a":{' * 50_000), rebuilt(entry(shape=[2**62, 4]), b"1234"), rebuilt(entry(), b"123"),
    rebuilt(entry(data_offsets=[4, 0]), b"1234"), rebuilt(entry(data_offsets=[2, 6]), b"123456"), rebuilt({"a": 3}),
    rebuilt({"a": {}}), rebuilt({"__metadata__": {"a": 3}}), b"\xff" * 64, b"",
])  # fmt: skip
def test_headers_that_are_none(data):
    with pytest.raises(RunError, match="needs a whole safetensors file; got 'x'"):
        from_bytes(data, "x")


def test_files_of_other_programs(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with pytest.raises(RunError, match=r"which is a file of numpy\.save: read it with numpy\.load"):
        load(tmp_path / "a.npy")
    with pytest.raises(
        RunError, match=r"looks like a file of torch\.save or numpy\.savez: write it with safetensors"
    ):
        load(tmp_path / "a.npz")
    files = pytest.importorskip("safetensors.numpy")
    files.save_file({"a": np.ones(2)}, tmp_path / "b", {"format": "np", "note": "{"})
    assert load(tmp_path / "b")["a"].tolist() == [1, 1]


# ------------------------------------------------------------------------------------------- refusals


class Holder:
    def state_dict(self):
        return {}


def test_states_that_cannot_be(tmp_path):
    path = tmp_path / "x"
    loop = []
    loop.append(loop)
    for state, words in [
        (network(), r"got Sequential for the whole\. Write its \.state_dict\(\)"),
        ({"model": network()}, r"got Sequential for 'model'\. Write its \.state_dict\(\)"),
        (
            {"a": [1, {2}]},
            "numbers, texts, bools, None, and lists, tuples and dicts of them; got set for 'a.1'",
        ),
        ({"a": b"x"}, "got bytes for 'a'"),
        ({"a": 1j}, "got complex for 'a'"),
        ({"a": np.ones(2, complex)}, "got complex128 for 'a'"),
        ({"a": np.array(["x"])}, "got <U1 for 'a'"),
        ({"a": {1.5: 1}}, "keys that are texts or integers; got 1.5 in 'a'"),
        ({True: 1}, "keys that are texts or integers; got True in 'the whole'"),
        (loop, "100 levels of nesting; got more. Does the state contain itself"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            save(path, state)
    for arguments in [(3, {}), ("a", "b"), ({}, {}), (network(), network())]:
        with pytest.raises(
            ArgumentError, match=r"save needs a path and a state; .* cr.save\(path, model.state_dict\(\)\)"
        ):
            save(*arguments)
    with pytest.raises(ArgumentError, match="load needs a path; got dict"):
        load({})
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be(tmp_path):
    with pytest.raises(RunError, match="No such file"):
        load(tmp_path / "missing")
    with pytest.raises(RunError, match=r"a place to write a file to is needed; got .*not a regular file"):
        save(tmp_path, {"a": cr.ones(1)})
    with pytest.raises(RunError, match="a place to write a file to is needed"):
        save(tmp_path / "no" / "folder", {"a": cr.ones(1)})
    assert os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save(path, {"a": cr.ones(2)})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        save(path, {"a": cr.zeros(2)})
    assert load(path)["a"].tolist() == [1, 1] and os.listdir(tmp_path) == [path.name]


def test_a_disk_that_is_full_keeps_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save(path, {"a": cr.ones(2)})
    code = (
        "import resource, signal, sys, numpy as np, chainrule as cr\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    cr.save(sys.argv[1], {'a': np.zeros(100_000)})\n"
        "except cr.errors.RunError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "File too large. Check the folder, its permissions and the free space" in done.stdout
    assert load(path)["a"].tolist() == [1, 1] and os.listdir(tmp_path) == [path.name]


# ------------------------------------------------------------------------------------------- names and folders


@pytest.mark.parametrize("letter", ["a", "é", "한", "🙂"])
def test_the_longest_names_that_a_disk_takes(tmp_path, letter):
    longest = 255 // len(letter.encode())
    for length in (1, 49, 50, 51, longest):
        path = tmp_path / (letter * min(length, longest))
        for number in (1, 2):
            save(path, {"a": number})
            assert load(path) == {"a": number}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may be several users")
def test_a_folder_that_takes_files_and_does_not_show_them():
    place = tempfile.mkdtemp(prefix="chainrule-test-")
    try:
        os.chown(place, 54321, -1)
        os.chmod(place, 0o300)
        os.seteuid(54321)
        try:
            save(os.path.join(place, "a"), {"a": 1})
            assert load(os.path.join(place, "a")) == {"a": 1}
        finally:
            os.seteuid(0)
        assert os.listdir(place) == ["a"]
    finally:
        shutil.rmtree(place)
