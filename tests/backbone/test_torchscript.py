import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from handclip_lib.backbone.load import SHAPES, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.backbone.torchscript import read_torchscript
from handclip_lib.backbone.weights import read_weights
from handclip_lib.errors import BackboneError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def _as_torch_reads(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.jit.load(str(path), map_location="cpu").state_dict())


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].stride() == tensor.stride(), name
        assert found[name].contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8))


@pytest.mark.parametrize("kind", ["jit", "jit float32"])
@pytest.mark.parametrize("tower", ["SMALL_VIT", "SMALL_RESNET"])
def test_the_tensors_are_those_that_torch_reads_to_the_bit(checkpoints, tmp_path, kind, tower):
    path = tmp_path / "weights.pt"
    checkpoints.write_checkpoint(path, getattr(checkpoints, tower), kind)
    _same(read_torchscript(path), _as_torch_reads(path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("vitb32", "jit"), ("rn50", "jit float32")])
def test_so_it_is_of_whole_architectures_and_openai_clip_makes_the_same_model(checkpoints, tmp_path, name, kind):
    path = tmp_path / "weights.pt"
    checkpoints.write_checkpoint(path, SHAPES[name], kind)
    _same(read_torchscript(path), _as_torch_reads(path))
    if kind == "jit":
        theirs = clip_package().load(str(path), device="cpu")[0].state_dict()
        _same(dict(load_backbone(name, weights=path, device="cpu").model.visual.state_dict(prefix="visual.")),
              {key: value for key, value in theirs.items() if key.startswith("visual.")})  # fmt: skip


class Numbers(torch.nn.Module):
    """Tensors of each type and layout, some of which share memory."""

    def __init__(self):
        super().__init__()
        base = torch.arange(24.0).reshape(4, 6)
        self.weight = torch.nn.Parameter(base.clone())
        self.tied = self.weight
        for name, tensor in {
            "across": base.t(), "part": base[1:3, 2:5], "empty": torch.empty(0, 3), "one": torch.tensor(3.5),
            "half": base.half(), "brain": base.bfloat16(), "double": base.double(), "long": base.long(),
            "int": base.int(), "short": base.short(), "char": base.char(), "byte": base.byte(), "bool": base > 3,
        }.items():  # fmt: skip
            self.register_buffer(f"as_{name}", tensor)
        self.count, self.words, self.maybe = 3, ["a", "b"], None
        self.inner = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner[0](x) + self.count + len(self.words)


def test_every_plain_type_and_layout_is_read_as_torch_reads_it(tmp_path):
    path = tmp_path / "numbers.pt"
    torch.jit.script(Numbers()).save(str(path))
    found = read_torchscript(path)
    _same(found, _as_torch_reads(path))
    assert found["tied"].data_ptr() == found["weight"].data_ptr()


class LeavesAMark(torch.nn.Module):
    """A module whose program writes a file where it is read, and when it is called."""

    def __init__(self, mark: str):
        super().__init__()
        self.mark = mark
        self.weight = torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor, bool]:
        return self.mark, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        self.mark, self.weight, self.training = state
        torch.save([self.weight], self.mark)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save([x], self.mark)
        return x


def test_the_program_in_an_archive_does_not_run(checkpoints, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "weights.pt"
    torch.jit.script(LeavesAMark(str(mark))).save(str(path))
    mark.unlink(missing_ok=True)
    with pytest.raises(
        BackboneError, match=r"weights\.pt was not read: its module keeps .* no program in a file is run"
    ):
        read_weights(path)
    assert not mark.exists()
    torch.jit.load(str(path))
    assert mark.exists(), "torch.jit.load runs it: the test is none otherwise"


def test_a_program_that_only_computes_is_left_where_it_is(tmp_path):
    class Prints(torch.nn.Module):
        def __init__(self, mark: str):
            super().__init__()
            self.mark, self.weight = mark, torch.nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save([x], self.mark)
            return x

    mark, path = tmp_path / "mark", tmp_path / "weights.pt"
    torch.jit.script(Prints(str(mark))).save(str(path))
    assert read_torchscript(path)["weight"].equal(torch.ones(2))
    assert not mark.exists()


def _packed(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def _entries(path: Path) -> dict[str, bytes]:
    torch.jit.script(torch.nn.Linear(3, 2)).save(str(path))
    with zipfile.ZipFile(path) as archive:
        return {f"w/{name.split('/', 1)[1]}": archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda of: of.pop("w/data/0"), r"weight lies in w/data/0, which is not there"),
        (lambda of: of.update({"w/data/0": of["w/data/0"][:-1]}), "weight has 23 bytes where 24 are announced"),
        (lambda of: of.update({"w/data/0": bytes(48)}), "weight has 48 bytes where 24 are announced"),
        (lambda of: of.update({"w/byteorder": b"big"}), "another byte order"),
        (lambda of: of.pop("w/data.pkl"), "no data.pkl"),
        (lambda of: of.update({"w/data.pkl": of["w/data.pkl"][:-1]}), "damaged"),
        (lambda of: of.update({"w/data.pkl": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."}), "its module keeps"),
        (lambda of: of.update({"w/data.pkl": b"\x80\x02ibuiltins\nprint\n."}), "instruction INST"),
        (lambda of: of.update({"w/data.pkl": bytes(1 << 26) + b"."}), "too large for any CLIP"),
        (lambda of: of.update({"w/data.pkl": of["w/data.pkl"].replace(b"FloatStorage", b"QInt8Storage")}), "of a type"),
        (lambda of: of.update({"w/data.pkl": of["w/data.pkl"].replace(b"_rebuild_tensor_v2", b"_rebuild_qtensor")}),
         r"no plain tensor \(torch._utils._rebuild_qtensor"),
        (lambda of: of.update({"w/data.pkl": of["w/data.pkl"].replace(b"\x01\x00\x00\x000", b"\x04\x00\x00\x00../x")}),
         r"lies in w/data/\.\./x, which is not there"),
    ],
)  # fmt: skip
def test_what_is_amiss_is_named(tmp_path, change, says):
    path = tmp_path / "weights.pt"
    entries = _entries(path)
    change(entries)
    with pytest.raises(BackboneError, match=says) as refused:
        read_weights(_packed(path, entries))
    assert str(path) in str(refused.value)


def test_sizes_beyond_what_is_stored_are_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "weights.pt"
    entries = _entries(path)
    place = next(
        position + 1
        for opcode, argument, position in pickletools.genops(entries["w/data.pkl"])
        if opcode.name == "BININT1" and argument == 3
    )
    small = entries["w/data.pkl"]
    huge = struct.pack("<i", 2**31 - 1)
    entries["w/data.pkl"] = small[: place - 1] + b"J" + huge + small[place + 1 :]
    with pytest.raises(BackboneError, match=r"weight of size \(2, 2147483647\) is larger than what is stored"):
        read_weights(_packed(path, entries))
    spread = tmp_path / "spread.pt"
    torch.save({"visual.proj": torch.zeros(1).expand(10**6, 10**6)}, spread)
    with pytest.raises(BackboneError, match=r"visual\.proj is no plain tensor .*spread from fewer numbers"):
        read_weights(spread)


def test_modules_that_hold_themselves_end(tmp_path):
    path = tmp_path / "weights.pt"
    entries = _entries(path)
    entries["w/data.pkl"] = b"\x80\x02c__torch__\nA\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub."
    with pytest.raises(BackboneError, match="hold each other without end"):
        read_weights(_packed(path, entries))


def test_a_compressed_archive_is_told_what_to_do(tmp_path):
    path = tmp_path / "weights.pt"
    with pytest.raises(BackboneError, match=r"weight is compressed.*zip -0"):
        read_weights(_packed(path, _entries(path), zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        lambda: torch.ones(4, 4).to_sparse(),
        lambda: torch.empty(4, device="meta"),
    ],
    ids=["quantized", "sparse", "without values"],
)
def test_a_tensor_that_is_not_plain_is_refused_by_name_in_every_pickle(tmp_path, make):
    path = tmp_path / "weights.pt"
    torch.save({"visual.proj": make()}, path)
    with pytest.raises(BackboneError, match=r"visual\.proj is no plain tensor"):
        read_weights(path)


def test_whole_numbers_are_no_weights(checkpoints, tmp_path):
    path = tmp_path / "weights.pt"
    stored = checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT)
    torch.save(stored | {"visual.proj": stored["visual.proj"].to(torch.int8)}, path)
    with pytest.raises(BackboneError, match=r"1 of a type weights have not: visual\.proj is int8"):
        load_backbone(str(path), device="cpu")


class _Code:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", ["object", "tar", "noise", "protocol 4"])
def test_torchs_advice_to_run_what_a_file_says_reaches_nobody(tmp_path, content):
    path = tmp_path / "weights.pt"
    if content == "object":
        torch.save({"a": _Code()}, path)
    elif content == "tar":
        (tmp_path / "storages").write_bytes(b"x")
        with tarfile.open(path, "w") as archive:
            for name in ("storages", "tensors", "pickle"):
                archive.add(tmp_path / "storages", name)
    elif content == "noise":
        path.write_bytes(bytes(range(1, 256)) * 20)
    else:
        path.write_bytes(pickle.dumps({"a": _Code()}, protocol=4))
    with pytest.raises(BackboneError) as refused:
        read_weights(path)
    assert "weights_only" not in str(refused.value)
    assert "allowlist" not in str(refused.value)
