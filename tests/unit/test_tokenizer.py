"""Tokenizers: three formats in, ids and text out; SentencePiece and llama.cpp are oracles."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arkinfer import converters
from arkinfer.checkpoint import TokenizerFiles
from arkinfer.converters import sentencepiece_model, tokenizer_json
from arkinfer.errors import InvalidBundleError, InvalidOptionError, PromptError, TokenizerError
from arkinfer.tokenizer import Tokenizer, derive_token_bytes, read_vocabulary, vocabulary_bytes
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_models import tiny_tokenizer, write_tiny_hf

GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2"

# What llama.cpp (llama-cpp-python 0.3.36) makes of these texts with SmolLM2's vocabulary.
LLAMA_CPP = [
    ("", []),
    (" ", [216]),
    ("  two  spaces ", [216, 827, 216, 5600, 216]),
    ("a\n\n\n  b\t\tc", [81, 1116, 3805, 278, 197, 197, 83]),
    ("I'll don't WE'VE it's", [57, 3060, 1326, 982, 26587, 23, 18525, 357, 506]),
    (
        "12345 67 3.14 \uff11\uff12\uff13",
        [
            33,
            34,
            35,
            36,
            37,
            216,
            38,
            39,
            216,
            35,
            30,
            33,
            36,
            216,
            8083,
            235,
            8083,
            236,
            8083,
            237,
        ],
    ),
    ("na\u00efve caf\u00e9 Stra\u00dfe", [3546, 46494, 37366, 19144, 34878, 85]),
    (
        "\u4f60\u597d\uff0c\u4e16\u754c\uff01",
        [18645, 250, 48392, 138, 12831, 7906, 240, 178, 239, 230, 8083, 219],
    ),
    (
        "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301",
        [
            10813,
            242,
            218,
            10813,
            235,
            119,
            321,
            231,
            10813,
            235,
            119,
            321,
            231,
            10813,
            235,
            117,
            297,
            151,
            219,
        ],
    ),
    ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
    ("x=<|im_end|>y <|endoftext|>", [104, 45, 2, 105, 216, 0]),
    (
        "def f(x):\n\treturn {'a': [1, 2]}\n",
        [1604, 275, 24, 104, 727, 198, 197, 5406, 7353, 81, 1539, 933, 33, 28, 216, 34, 28852, 198],
    ),
    ("\u2026\u2014\u201cquotes\u201d", [2829, 1265, 1585, 385, 2346, 573]),
    (
        "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd "
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        [
            21706,
            20602,
            44626,
            31462,
            10805,
            12960,
            119,
            31838,
            23970,
            162,
            247,
            12335,
            134,
            27011,
            30658,
            16525,
            44757,
            37189,
        ],
    ),
    ("\u00a0nbsp\u3000wide", [15442, 94, 32093, 12109, 218, 3641]),
    ("\r\nwindows\r\n", [201, 198, 37066, 2738]),
    ("\u0000\u0001\u007f", [190, 191, 217]),
]

USER_DEFINED = ["\n", "\t", "<h2>", "</h2>", "...", ".", "```", "，", "。"]

ENGLISH = (GOLDEN / "text.txt").read_text(encoding="utf-8")
CHINESE = "今天天气很好，我们去公园散步。长城是中国古代的伟大建筑。你好，世界！学习使人进步。" * 20

# Text like the trained vocabulary, and text unlike it.
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*ENGLISH.split()[:200], *CHINESE[:60], *USER_DEFINED, " ", "  ", "12345"]),
        max_size=25,
    ).map("".join),
)


def train(prefix: bool = False) -> bytes:
    """A SentencePiece model with the settings of MiniCPM4's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*ENGLISH.splitlines(), CHINESE]),
        model_writer=model,
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        split_digits=True,
        user_defined_symbols=USER_DEFINED,
        character_coverage=0.98,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def trained() -> tuple[sentencepiece.SentencePieceProcessor, Tokenizer]:
    """The same model in SentencePiece and in ours."""
    data = train()
    source = tokenizer_json.from_pieces(sentencepiece_model.parse(data))
    return sentencepiece.SentencePieceProcessor(model_proto=data), Tokenizer(source)


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Tokenizer:
    """SmolLM2's tokenizer from its GGUF file."""
    files = converters.open(smollm2_gguf).tokenizer
    assert files is not None
    return Tokenizer.from_files(files)


def tiny() -> Tokenizer:
    return Tokenizer(json.dumps(tiny_tokenizer()))


@pytest.mark.parametrize(("text", "ids"), LLAMA_CPP)
def test_smollm2_ids_are_those_of_llama_cpp(smollm2: Tokenizer, text: str, ids: list[int]) -> None:
    assert smollm2.encode(text) == ids


def test_smollm2_long_text_is_tokenized_like_llama_cpp(smollm2: Tokenizer) -> None:
    expected = np.load(GOLDEN / "llamacpp.npz")["tokens"].tolist()
    ids = smollm2.encode(ENGLISH)
    assert ids[: len(expected)] == expected
    assert smollm2.decode(ids) == ENGLISH


def test_smollm2_prompts_are_tokenized_like_llama_cpp(smollm2: Tokenizer) -> None:
    for prompt in json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8")).values():
        assert smollm2.encode(prompt["text"]) == prompt["token_ids"]


def test_smollm2_facts(smollm2: Tokenizer) -> None:
    assert len(smollm2) == 49152
    assert (smollm2.bos_id, smollm2.add_bos) == (1, False)
    assert smollm2.eos_ids == (2, 0)
    assert smollm2.special_ids == frozenset(range(17))
    assert smollm2.token(2) == "<|im_end|>"
    assert smollm2.token_id("<|im_start|>") == 1
    assert all(smollm2.token_bytes[i] == b"" for i in smollm2.special_ids)


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_ids_are_those_of_sentencepiece(
    trained: tuple[sentencepiece.SentencePieceProcessor, Tokenizer], text: str
) -> None:
    oracle, ours = trained
    # U+2581 stands for a space inside; SentencePiece gives 0 and we too only where it is written.
    text = text.replace("\u2581", "_").replace("\0", "")
    ids = ours.encode(text, add_bos=False)
    if not {1, 2, 0} & set(ids):  # SentencePiece does not look for control tokens in text
        assert ids == oracle.encode(text)
        assert ours.decode(ids) == text


def test_a_dummy_prefix_is_added_and_taken_off_again() -> None:
    data = train(prefix=True)
    oracle = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = Tokenizer(tokenizer_json.from_pieces(sentencepiece_model.parse(data)))
    for text in ("Hello world", "你好", " one", "the end."):
        ids = ours.encode(text)
        assert ids == oracle.encode(text)
        assert ours.decode(ids) == text == oracle.decode(ids)


def _bytes_and_library(ours: Tokenizer, source: str, text: str) -> None:
    library = tokenizers.Tokenizer.from_str(source)
    ids = ours.encode(text, add_bos=False)
    joined = b"".join(ours.token_bytes[i] for i in ids)
    assert ours.decode(ids) == joined.decode("utf-8", errors="replace")
    assert ours.decode(ids) == library.decode(ids, skip_special_tokens=True)


@settings(deadline=None, max_examples=200)
@given(text=TEXTS)
def test_token_bytes_join_to_the_text(smollm2: Tokenizer, text: str) -> None:
    # This vocabulary lacks some control characters and bytes that no character uses.
    known = {piece[0] for piece in smollm2.token_bytes if len(piece) == 1}
    assert known >= {*range(0x20, 0xC0), *range(0xC2, 0xF1)}
    assume(known >= set(text.encode()))
    ids = smollm2.encode(text)
    if not smollm2.special_ids & set(ids):
        assert smollm2.decode_bytes(ids) == text.encode()
        assert smollm2.decode(ids) == text


@settings(deadline=None, max_examples=200)
@given(text=TEXTS)
def test_token_bytes_join_to_what_the_library_decodes(text: str) -> None:
    source = json.dumps(tiny_tokenizer())
    _bytes_and_library(Tokenizer(source), source, text.replace("\u2581", ""))


def test_a_character_may_be_split_over_tokens(smollm2: Tokenizer) -> None:
    for ours, text in ((smollm2, "你好，世界😀"), (tiny(), "吗😀é")):
        ids = ours.encode(text, add_bos=False)
        pieces = [ours.token_bytes[i] for i in ids]
        assert b"".join(pieces) == text.encode()
        broken = 0
        for piece in pieces:
            try:
                piece.decode()
            except UnicodeDecodeError:
                broken += 1
        assert broken >= 2
        assert ours.decode(ids[:-1]).endswith("\ufffd")


def test_bos_is_added_once() -> None:
    ours = Tokenizer(json.dumps(tiny_tokenizer()), add_bos=True)
    assert ours.bos_id == 1
    plain = ours.encode("hello", add_bos=False)
    assert ours.encode("hello") == [1, *plain]
    assert ours.encode("<s>hello") == [1, *plain]
    assert ours.encode("") == [1]
    assert ours.encode("", add_bos=False) == []


def test_bos_without_such_a_token_is_refused() -> None:
    tree = tiny_tokenizer() | {"post_processor": None}
    with pytest.raises(InvalidOptionError, match="BOS"):
        Tokenizer(json.dumps(tree)).encode("x", add_bos=True)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(PromptError, match="character 2"):
        tiny().encode("ab\ud800")


@pytest.mark.parametrize("token", [-1, 320])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidOptionError):
        tiny().decode([token])


def _files(folder: Path) -> TokenizerFiles:
    files = converters.open(folder).tokenizer
    assert files is not None
    return files


def test_huggingface_folder(tmp_path: Path) -> None:
    files = _files(write_tiny_hf(tmp_path, "minicpm4-8b", vocab=330))
    assert (files.add_bos, files.bos_id, files.eos_ids) == (True, 1, (2, 328))
    assert files.special_ids == (0, 1, 2, 328, 329)
    assert files.chat_template is not None
    assert len(files.token_bytes) == 330
    assert files.token_bytes[3 + 0xE4] == b"\xe4"
    assert files.token_bytes[1] == b""


def test_a_template_of_its_own_wins(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    (folder / "chat_template.jinja").write_text("own")
    assert _files(folder).chat_template == "own"


def test_named_templates(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    files = _files(folder)
    assert files.chat_template == "d"
    assert files.add_bos  # as the tokenizer's own post-processor does


def test_sentencepiece_folder(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "minicpm4-8b", vocab=960)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(train())
    added = {"900": {"content": "<|im_end|>", "special": True}, "901": {"content": "<new>"}}
    settings_json = {"added_tokens_decoder": added, "eos_token": {"content": "<|im_end|>"}}
    settings_json |= {"add_bos_token": True, "bos_token": "<s>"}  # type: ignore[dict-item]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_json))
    files = _files(folder)
    ours = Tokenizer.from_files(files)
    assert ours.encode("a<|im_end|>")[-1] == 900
    assert ours.encode("<new>") == [1, 901]
    assert ours.decode([901, 900]) == "<new>"
    assert files.eos_ids == (2, 958, 900)
    assert len(files.token_bytes) == 960


def test_gguf_sentencepiece_equals_the_folder(tmp_path: Path) -> None:
    theirs = Tokenizer.from_files(_files(write_tiny_hf(tmp_path / "hf", "minicpm4-8b")))
    ours = Tokenizer.from_files(_files(write_tiny_gguf(tmp_path / "m.gguf", "minicpm4-8b")))
    assert ours.token_bytes == theirs.token_bytes
    assert ours.special_ids == theirs.special_ids
    assert ours.add_bos and ours.bos_id == 1
    assert set(ours.eos_ids) == {2, 318}
    for text in ("hello the 你好吗", "in an\n on  there<|im_end|>", "Xé😀"):
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize(("prefix", "expected"), [(None, True), (True, True), (False, False)])
def test_gguf_space_prefix(tmp_path: Path, prefix: bool | None, expected: bool) -> None:
    path = write_tiny_gguf(
        tmp_path / "m.gguf", "llama", metadata={"tokenizer.ggml.add_space_prefix": prefix}
    )
    ours = Tokenizer.from_files(_files(path))
    assert (ours.decode_bytes(ours.encode("the")) == b" the") == expected
    assert ours.decode(ours.encode("the")) == "the"


def test_more_tokens_than_the_model_embeds(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama", overrides={"vocab_size": 310})
    with pytest.raises(TokenizerError, match="ids up to 319.*vocab_size of 310"):
        converters.open(folder)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"tokenizer.ggml.model": "bert"}, "'bert'"),
        ({"tokenizer.ggml.scores": [1.0]}, "scores does not fit"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "token_type does not fit"),
        ({"tokenizer.ggml.tokens": None, "llama.vocab_size": 320}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.model": "gpt2"}, "no tokenizer.ggml.merges"),
        (
            {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["t zz"]},
            "'t zz' names a token",
        ),
        (
            {
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.merges": ["t h"],
                "tokenizer.ggml.pre": "unheard-of",
            },
            "'unheard-of'",
        ),
        ({"tokenizer.ggml.bos_token_id": 5000}, "token 5000"),
    ],
)
def test_bad_gguf_tokenizers(tmp_path: Path, metadata: dict[str, Any], match: str) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", "llama", metadata=metadata)
    with pytest.raises(TokenizerError, match=match):
        converters.open(path)


def test_llama3_pre_tokenizer(tmp_path: Path) -> None:
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.merges": ["t h", "th e"],
        "tokenizer.ggml.pre": "llama-bpe",
    }
    files = _files(write_tiny_gguf(tmp_path / "m.gguf", "llama", metadata=metadata))
    library = tokenizers.Tokenizer.from_str(files.json)
    cut = [piece for piece, _ in library.pre_tokenizer.pre_tokenize_str("I'Ll say 12345 !?\n\n x")]
    assert cut == ["I", "'Ll", "Ġsay", "Ġ", "123", "45", "Ġ!?ĊĊ", "Ġx"]
    assert files.add_bos


def test_unknown_decoders_are_refused() -> None:
    tree = tiny_tokenizer() | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    with pytest.raises(TokenizerError, match="WordPiece"):
        derive_token_bytes(json.dumps(tree))
    with pytest.raises(TokenizerError, match="missing"):
        derive_token_bytes(json.dumps(tiny_tokenizer() | {"decoder": None}))


def test_decoders_may_leave_their_type_out() -> None:
    tree = tiny_tokenizer()
    expected = derive_token_bytes(json.dumps(tree))
    del tree["decoder"]["decoders"][0]["type"]
    assert derive_token_bytes(json.dumps(tree)) == expected


def test_metaspace_decoders_are_known() -> None:
    decoder = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    source = json.dumps(tiny_tokenizer() | {"decoder": decoder})
    ours = Tokenizer(source)
    ids = [*ours.encode(" the"), *ours.encode(" in")]
    assert ours.decode_bytes(ids) == b" the in"
    assert ours.decode(ids) == "the in" == tokenizers.Tokenizer.from_str(source).decode(ids)


@pytest.mark.parametrize("source", ["", "{}", "[1]", '{"model": {"type": "BPE"}}', "not json"])
def test_unreadable_tokenizers(source: str) -> None:
    with pytest.raises(TokenizerError, match="cannot read"):
        Tokenizer(source)


@pytest.mark.parametrize(
    ("model_type", "rule", "match"),
    [("unigram", "identity", "unigram model"), ("bpe", "nmt_nfkc", "a character map")],
)
def test_other_sentencepiece_models_are_refused(model_type: str, rule: str, match: str) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH.splitlines()),
        model_writer=model,
        model_type=model_type,
        vocab_size=200,
        normalization_rule_name=rule,
        num_threads=1,
        minloglevel=2,
    )
    with pytest.raises(TokenizerError, match=match):
        sentencepiece_model.parse(model.getvalue())


def test_added_tokens_must_not_contradict_the_model() -> None:
    model = sentencepiece_model.parse(train())
    with pytest.raises(TokenizerError, match="id 950"):
        tokenizer_json.from_pieces(model, [tokenizer_json.AddedToken(950, "<s>", True)])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8), max_size=40))
def test_vocabulary_round_trip(pieces: list[bytes]) -> None:
    data = vocabulary_bytes(pieces)
    assert struct.unpack_from("<I", data)[0] == len(pieces)
    assert read_vocabulary(data) == tuple(pieces)


Change = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\xff\xff\xff\xff" + data[4:],
        lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:],
        lambda data: data[:4] + b"\x01\0\0\0" + data[8:],
    ],
)
def test_damaged_vocabularies(change: Change) -> None:
    with pytest.raises(InvalidBundleError):
        read_vocabulary(change(vocabulary_bytes([b"abc", b"de", b"f"])))
