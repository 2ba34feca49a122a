"""Damaged and hostile checkpoints: a named error in one line, and nothing else."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkinfer import converters
from arkinfer.checkpoint import Checkpoint
from arkinfer.converters import sentencepiece_model
from arkinfer.errors import (
    ArkInferError,
    CheckpointFormatError,
    ConfigError,
    DamagedCheckpointError,
    InputNotFoundError,
    TokenizerError,
    UnknownModelTypeError,
)
from tests.support.tiny_gguf import QTypes, write_tiny_gguf
from tests.support.tiny_models import tiny_config, tiny_tensors, write_tiny_hf

FUZZ = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def refuses(path: Path, error: type[ArkInferError], match: str) -> None:
    """``path`` is refused with this error, in one line that names the problem."""
    with pytest.raises(error, match=match) as caught:
        converters.open(path)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def read_everything(checkpoint: Checkpoint) -> None:
    """Touch what a compile would touch."""
    for name, info in checkpoint.tensors.items():
        with np.errstate(all="ignore"):
            assert checkpoint.read(name).shape == info.shape


# --- paths ---


def test_missing_path(tmp_path: Path) -> None:
    refuses(tmp_path / "nothing", InputNotFoundError, "nothing.*No such file")


def test_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refuses(tmp_path / "file" / "more", InputNotFoundError, "Not a directory")


def test_path_with_a_null_character() -> None:
    refuses(Path("a\0b"), InputNotFoundError, "null")


def test_empty_folder(tmp_path: Path) -> None:
    refuses(tmp_path, CheckpointFormatError, "not a checkpoint")


def test_some_other_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"PK\3\4 something")
    refuses(tmp_path / "model.bin", CheckpointFormatError, "not a checkpoint")


def test_folder_without_config(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    (folder / "config.json").unlink()
    refuses(folder, ConfigError, "no config.json")


def test_folder_without_weights(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    (folder / "model.safetensors").unlink()
    refuses(folder, CheckpointFormatError, "no .safetensors file")


def test_folder_with_two_gguf_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiny_gguf(tmp_path / f"{name}.gguf", "llama")
    refuses(tmp_path, CheckpointFormatError, "2 .gguf files")


# --- configs ---


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "holds a list"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"hidden_size": ' + b"9" * 100_000 + b"}", "not JSON"),
    ],
    ids=["empty", "cut", "list", "not-utf8", "deep", "huge-number"],
)
def test_unreadable_config(tmp_path: Path, text: bytes, match: str) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    (folder / "config.json").write_bytes(text)
    refuses(folder, DamagedCheckpointError, match)


def test_unknown_model_type(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama", overrides={"model_type": "gpt_neox"})
    refuses(folder, UnknownModelTypeError, "gpt_neox.*llama, minicpm")


def test_missing_model_type(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama", overrides={"model_type": None})
    refuses(folder, ConfigError, "no model_type")


@pytest.mark.parametrize("missing", ["short_factor", "long_factor"])
def test_missing_rope_arrays(tmp_path: Path, missing: str) -> None:
    folder = write_tiny_hf(tmp_path, "minicpm4-8b")
    config = json.loads((folder / "config.json").read_text())
    del config["rope_scaling"][missing]
    (folder / "config.json").write_text(json.dumps(config))
    refuses(folder, ConfigError, f"{missing} is missing")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**300, 1e308, float("nan"), float("inf")]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-2, 9), max_size=3),
    st.dictionaries(st.sampled_from(["type", "rope_type", "topk", "x"]), st.integers(), max_size=3),
)


@FUZZ
@given(data=st.data(), kind=st.sampled_from(["minicpm4.1-8b", "llama"]))
def test_any_value_for_any_config_key(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    folder = write_tiny_hf(tmp_path_factory.mktemp("hf"), kind, layers=1, sparse={"topk": 3})
    config = json.loads((folder / "config.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*config, "head_dim", "sparse_config"]))
        if isinstance(config.get(key), dict) and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from([*config[key], "attention_factor", "dense_len"]))
            config[key][inner] = data.draw(VALUES)
        else:
            config[key] = data.draw(VALUES)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        result = converters.open(folder).config
    except ArkInferError as error:
        assert "\n" not in str(error)
        return
    assert result.num_heads % result.num_kv_heads == 0
    assert result.head_dim % 2 == 0
    assert len(result.rope.short_factors) in (0, result.head_dim // 2)
    assert all(0 < f < float("inf") for f in (*result.rope.short_factors, result.rms_norm_eps))


# --- safetensors ---


def _header(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _with_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    header, body = _header(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 3000, -1, -4096])
def test_truncated_safetensors(tmp_path: Path, keep: int) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refuses(folder, DamagedCheckpointError, "model.safetensors")


@pytest.mark.parametrize("length", [10**7, 2**31, 2**63, 2**64 - 1])
def test_header_length_beyond_the_file(tmp_path: Path, length: int) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    file = folder / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    refuses(folder, DamagedCheckpointError, f"header of {length} bytes")


def test_bytes_after_the_tensors(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    refuses(folder, DamagedCheckpointError, "as its header says")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"shape": [127]}, "has 512 bytes instead of 508"),
        ({"shape": [2**40, 2**40]}, "model.norm.weight"),
        ({"shape": [-1]}, "no usable"),
        ({"shape": [True]}, "no usable"),
        ({"shape": [1] * 50}, "no usable"),
        ({"shape": "128"}, "no usable"),
        ({"shape": [0, 2**61], "data_offsets": [0, 0]}, "no usable"),
        ({"dtype": "F99"}, "no usable"),
        ({"dtype": 4}, "no usable"),
        ({"dtype": "F16"}, "instead of 256"),
        ({"data_offsets": [4, 0]}, "no usable"),
        ({"data_offsets": [0, 512]}, "starts at byte"),
        ({"data_offsets": [2**61, 2**61 + 512]}, "starts at byte"),
        ({"data_offsets": [2**70, 2**70 + 512]}, "no usable"),
        ({"data_offsets": [1, 2, 3]}, "no usable"),
        ({"data_offsets": None}, "no usable"),
    ],
)
def test_wrong_tensor_fields(tmp_path: Path, fields: dict[str, Any], match: str) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    _with_header(folder / "model.safetensors", lambda header: header[NORM].update(fields))
    refuses(folder, DamagedCheckpointError, match)


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"a": 3}', b"\xff", b"[" * 100_000, b'{"a":1,"a":2}', b"null"]
)
def test_headers_that_are_no_header(tmp_path: Path, text: bytes) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    refuses(folder, DamagedCheckpointError, "is damaged")


def _index(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return apply


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_index(lambda index: index["weight_map"].update({NORM: "../x.safetensors"})), "usable"),
        (_index(lambda index: index["weight_map"].update({NORM: "/x.safetensors"})), "usable"),
        (_index(lambda index: index["weight_map"].update({NORM: 5})), "usable"),
        (_index(lambda index: index.update(weight_map=[])), "usable"),
        (_index(lambda index: index["weight_map"].update({NORM: "gone.safetensors"})), "gone"),
        (
            _index(
                lambda index: index["weight_map"].update(ghost="model-00001-of-00002.safetensors")
            ),
            "lacks tensors.*ghost",
        ),
        (lambda folder: (folder / "model-00001-of-00002.safetensors").unlink(), "lacks.*00001"),
    ],
)
def test_wrong_shards(tmp_path: Path, change: Callable[[Path], None], match: str) -> None:
    folder = write_tiny_hf(tmp_path, "llama", shards=2)
    change(folder)
    refuses(folder, DamagedCheckpointError, match)


def test_the_same_tensor_in_two_files(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "copy.safetensors").write_bytes(data)
    refuses(folder, DamagedCheckpointError, "repeats tensors")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    hf = converters.open(write_tiny_hf(tmp_path / "hf", "llama"))
    os.truncate(tmp_path / "hf" / "model.safetensors", 100)
    with pytest.raises(DamagedCheckpointError, match="any more"):
        hf.read("lm_head.weight")
    gguf = converters.open(write_tiny_gguf(tmp_path / "m.gguf", "llama"))
    os.truncate(tmp_path / "m.gguf", 100)
    with pytest.raises(DamagedCheckpointError, match="any more"):
        gguf.read("lm_head.weight")


@FUZZ
@given(data=st.data())
def test_flipped_and_truncated_safetensors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = write_tiny_hf(tmp_path_factory.mktemp("hf"), "llama", layers=1, vocab=300)
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    head = 8 + int.from_bytes(raw[:8], "little")
    _damage(raw, head, data)
    file.write_bytes(raw)
    try:
        read_everything(converters.open(folder))
    except ArkInferError as error:
        assert "\n" not in str(error)


def _damage(raw: bytearray, head: int, data: st.DataObject) -> None:
    """Change some bytes of the head, often to ASCII, and perhaps cut the end off."""
    for _ in range(data.draw(st.integers(0, 3))):
        value = data.draw(st.one_of(st.integers(0, 255), st.integers(32, 126)))
        raw[data.draw(st.integers(0, head - 1))] = value
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]


# --- GGUF ---


@pytest.fixture
def gguf_bytes(tmp_path: Path) -> bytearray:
    return bytearray(write_tiny_gguf(tmp_path / "good.gguf", "llama").read_bytes())


def _gguf(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_bad_magic(tmp_path: Path, gguf_bytes: bytearray) -> None:
    gguf_bytes[:4] = b"GGML"
    path = _gguf(tmp_path / "m.gguf", gguf_bytes)
    refuses(path, DamagedCheckpointError, "does not start with GGUF")


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_other_versions(tmp_path: Path, gguf_bytes: bytearray, version: int) -> None:
    gguf_bytes[4:8] = struct.pack("<I", version)
    refuses(_gguf(tmp_path / "m.gguf", gguf_bytes), CheckpointFormatError, f"version {version}")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**31])
def test_string_length_beyond_the_file(tmp_path: Path, gguf_bytes: bytearray, length: int) -> None:
    gguf_bytes[24:32] = struct.pack("<Q", length)  # of the first key
    path = _gguf(tmp_path / "m.gguf", gguf_bytes)
    refuses(path, DamagedCheckpointError, f"{length} bytes of a string")


@pytest.mark.parametrize(("at", "what"), [(8, "tensors"), (16, "metadata entries")])
@pytest.mark.parametrize("count", [2**63, 2**40])
def test_counts_beyond_the_file(
    tmp_path: Path, gguf_bytes: bytearray, at: int, what: str, count: int
) -> None:
    gguf_bytes[at : at + 8] = struct.pack("<Q", count)
    path = _gguf(tmp_path / "m.gguf", gguf_bytes)
    refuses(path, DamagedCheckpointError, f"{count} {what}")


def _info(data: bytearray, name: bytes) -> int:
    """Where the info of a tensor with two dimensions continues after its name."""
    return data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)


@pytest.mark.parametrize("offset", [2**63, 2**64 - 32, 10**7 * 32, 2**64 - 1])
def test_tensor_offset_past_the_end(tmp_path: Path, gguf_bytes: bytearray, offset: int) -> None:
    at = _info(gguf_bytes, b"output.weight") + 4 + 16 + 4
    gguf_bytes[at : at + 8] = struct.pack("<Q", offset)
    path = _gguf(tmp_path / "m.gguf", gguf_bytes)
    refuses(path, DamagedCheckpointError, "'output.weight' lies at")


def test_tensor_off_its_alignment(tmp_path: Path, gguf_bytes: bytearray) -> None:
    at = _info(gguf_bytes, b"output_norm.weight") + 4 + 8 + 4
    gguf_bytes[at] += 4
    refuses(_gguf(tmp_path / "m.gguf", gguf_bytes), DamagedCheckpointError, "alignment")


@pytest.mark.parametrize(
    ("skip", "value", "match"),
    [
        (0, struct.pack("<I", 0), "0 dimensions"),
        (0, struct.pack("<I", 2**32 - 1), "4294967295 dimensions"),
        (4, struct.pack("<Q", 0), "is empty"),
        (4, struct.pack("<Q", 2**62), "lies at"),
        (20, struct.pack("<I", 77), "unknown type 77"),
        (20, struct.pack("<I", 12), "blocks of 256"),
    ],
)
def test_wrong_tensor_infos(
    tmp_path: Path, gguf_bytes: bytearray, skip: int, value: bytes, match: str
) -> None:
    at = _info(gguf_bytes, b"output.weight") + skip
    gguf_bytes[at : at + len(value)] = value
    refuses(_gguf(tmp_path / "m.gguf", gguf_bytes), DamagedCheckpointError, match)


@pytest.mark.parametrize(
    ("pair", "match"),
    [
        (struct.pack("<I", 99), "unknown type 99"),
        (struct.pack("<IIQ", 9, 4, 2**61), "2305843009213693952 numbers"),
        (struct.pack("<IIQ", 9, 8, 2**61), "2305843009213693952 strings"),
        (struct.pack("<IIQ", 9, 9, 1) * 3, "array of the type 9"),
        (struct.pack("<IQ", 8, 2) + b"\xc3\x28", "not UTF-8"),
        (struct.pack("<I", 10), "bytes"),
    ],
    ids=["type", "numbers", "strings", "nested", "utf8", "cut"],
)
def test_wrong_metadata(tmp_path: Path, pair: bytes, match: str) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + pair
    refuses(_gguf(tmp_path / "m.gguf", data), DamagedCheckpointError, match)


@pytest.mark.parametrize("alignment", [0, 2**32 - 1])
def test_wrong_alignment(tmp_path: Path, alignment: int) -> None:
    pair = struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, alignment)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair
    refuses(_gguf(tmp_path / "m.gguf", data), DamagedCheckpointError, "alignment")


def test_keys_and_tensors_given_twice(tmp_path: Path, gguf_bytes: bytearray) -> None:
    pair = struct.pack("<Q", 1) + b"k" + struct.pack("<IB", 0, 1)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair * 2
    refuses(_gguf(tmp_path / "a.gguf", data), DamagedCheckpointError, "'k' is given twice")
    doubled = gguf_bytes.replace(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight")
    refuses(_gguf(tmp_path / "b.gguf", doubled), DamagedCheckpointError, "attn_k.*given twice")


def test_query_rows_that_are_no_heads(tmp_path: Path) -> None:
    path = write_tiny_gguf(
        tmp_path / "m.gguf",
        "llama",
        metadata={
            "llama.attention.head_count": 96,
            "llama.attention.head_count_kv": 4,
            "llama.attention.key_length": 16,
        },
    )
    refuses(path, DamagedCheckpointError, "multiple of 192 rows")


@pytest.mark.parametrize("keep", [0, 3, 4, 20, 24, 200, 5000, -1])
def test_truncated_gguf(tmp_path: Path, gguf_bytes: bytearray, keep: int) -> None:
    refuses(_gguf(tmp_path / "m.gguf", gguf_bytes[:keep]), DamagedCheckpointError, "m.gguf")


@FUZZ
@given(data=st.data(), qtype=st.sampled_from([QTypes.F16, QTypes.Q4_1]))
def test_flipped_and_truncated_gguf(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, qtype: QTypes
) -> None:
    folder = tmp_path_factory.mktemp("gguf")
    kind = data.draw(st.sampled_from(["llama", "minicpm4-8b"]))
    path = write_tiny_gguf(folder / "m.gguf", kind, qtype=qtype, layers=1, vocab=300)
    raw = bytearray(path.read_bytes())
    config = tiny_config(kind, layers=1, vocab=300)
    weights = sum(values.size for values in tiny_tensors(config).values() if values.ndim == 2)
    body = weights * (2 if qtype == QTypes.F16 else 20 / 32)
    _damage(raw, len(raw) - int(body), data)
    path.write_bytes(raw)
    try:
        read_everything(converters.open(path))
    except ArkInferError as error:
        assert "\n" not in str(error)


# --- tokenizers ---


@FUZZ
@given(data=st.binary(max_size=80))
def test_any_bytes_as_sentencepiece_model(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises((DamagedCheckpointError, TokenizerError)):
        sentencepiece_model.read(path)


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("tokenizer.json", "{}", TokenizerError),
        ("tokenizer.json", "[" * 100_000, TokenizerError),
        ("tokenizer_config.json", "{", DamagedCheckpointError),
        ("generation_config.json", "3", DamagedCheckpointError),
    ],
)
def test_unreadable_files_beside_the_weights(
    tmp_path: Path, file: str, text: str, error: type[ArkInferError]
) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    (folder / file).write_text(text)
    with pytest.raises(error):
        converters.open(folder)


@FUZZ
@given(data=st.data())
def test_flipped_tokenizers(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write_tiny_hf(tmp_path_factory.mktemp("hf"), "llama", layers=1, vocab=300)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if data.draw(st.booleans()):
            continue
        raw = bytearray((folder / name).read_bytes())
        _damage(raw, len(raw), data)
        (folder / name).write_bytes(raw)
    try:
        files = converters.open(folder).tokenizer
    except ArkInferError:
        return
    assert files is not None
    assert len(files.token_bytes) == 300
