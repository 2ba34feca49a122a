"""The Python face: load, chat, sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import arkinfer
from arkinfer import errors
from arkinfer.bundle import Bundle
from arkinfer.runtime.model import Model
from tests.support.tiny_models import SMALL_SPARSE

KIND = "minicpm4.1-8b"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[..., Bundle]) -> Path:
    return tiny_bundle(KIND, sparse=SMALL_SPARSE).path


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return arkinfer.load(bundle, context=256, threads=2, kv="fp32", activations="fp32")


def test_chat_streams_pieces(model: Model) -> None:
    pieces = list(model.chat(MESSAGES, temperature=0.7, seed=1, max_tokens=12))
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason in ("length", "stop")
    again = "".join(p.text for p in model.chat(MESSAGES, temperature=0.7, seed=1, max_tokens=12))
    assert again == "".join(piece.text for piece in pieces)


def test_sampling_comes_from_the_bundle_unless_given(model: Model) -> None:
    sealed = model.bundle.manifest.generation
    assert sealed["temperature"] > 0
    assert model.sampling().temperature == sealed["temperature"]
    assert model.sampling(temperature=None).temperature == sealed["temperature"]
    assert model.sampling(temperature=0, stop="x").temperature == 0
    assert model.sampling(stop="END").stop == ("END",)
    assert set(model.sampling().stop_ids) == set(model.bundle.manifest.tokenizer.eos_ids)  # type: ignore[union-attr]


def test_session_appends_and_rolls_back(model: Model) -> None:
    session = model.session()
    logits = session.append([1, 5, 7], all_logits=True)
    assert (logits.shape, logits.dtype) == ((3, 320), np.float32)
    session.rollback(2)
    assert (session.length, session.tokens) == (2, [1, 5])
    assert np.array_equal(session.append([7])[0], logits[2])


def test_selected_blocks(model: Model) -> None:
    session = model.session()
    session.append([3] * 20)
    dense = session.selected_blocks(layer=0)
    assert len(dense) == 2
    assert [list(blocks) for blocks in dense] == [list(range(len(dense[0])))] * 2
    session.append(list(range(3, 180)))
    for blocks in session.selected_blocks(layer=1):
        # The first block and the local ones are always there, the others were chosen.
        assert blocks[0] == 0
        assert list(blocks) == sorted(set(blocks.tolist()))
        assert blocks[-1] == (session.length - 1) // 16
        assert len(blocks) < (session.length - 1) // 16
    with pytest.raises(errors.InvalidOptionError):
        session.selected_blocks(layer=2)


def test_sessions_are_independent(model: Model) -> None:
    first, second = model.session(), model.session()
    alone = first.append([1, 5, 7])
    second.append([9] * 50)
    assert (first.length, second.length) == (3, 50)
    first.rollback(2)
    assert np.array_equal(first.append([7]), alone)


def test_onnxruntime_runs_the_same_bundle(bundle: Path, model: Model) -> None:
    oracle = arkinfer.load(bundle, context=256, backend="onnxruntime")
    assert oracle.info.backend == "onnxruntime"
    tokens = np.random.default_rng(0).integers(0, 320, 120).tolist()
    ours, theirs = model.session(), oracle.session()
    logits = ours.append(tokens, all_logits=True), theirs.append(tokens, all_logits=True)
    scale = np.abs(logits[1]).max()
    assert np.abs(logits[0] - logits[1]).max() < 1e-4 * scale
    for layer in range(2):
        pairs = zip(ours.selected_blocks(layer), theirs.selected_blocks(layer), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    answers = [
        [p.token for p in m.generate(tokens[:40], temperature=0, max_tokens=20)]
        for m in (model, oracle)
    ]
    assert answers[0] == answers[1]


def test_session_outlives_its_model(bundle: Path) -> None:
    session = arkinfer.load(bundle, context=64).session()
    assert np.isfinite(session.append([1, 2])).all()


def test_trace_reports_steps_with_values(model: Model) -> None:
    session = model.session()
    with session.trace() as steps:
        session.append([1, 2, 3])
    by_stage = {step.stage: step for step in steps}
    assert by_stage["layers.0.output"].kernel == "matmul"
    values = by_stage["layers.1.output"].values
    assert values is not None
    assert values.shape == (3, 256)
    assert all(step.seconds >= 0 for step in steps)
    count = len(steps)
    session.append([4])
    assert len(steps) == count


def test_what_a_trace_raises_reaches_the_caller(model: Model) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    session = model.session()
    with pytest.raises(ZeroDivisionError), session.trace(fail):
        session.append([1])


@pytest.mark.parametrize(
    "tokens", [[], [-1], [320], [1.5], [2**40], ["a"], [[1, 2]]], ids=lambda tokens: str(tokens)
)
def test_bad_tokens_are_refused(model: Model, tokens: list[int]) -> None:
    session = model.session()
    with pytest.raises(errors.InvalidOptionError):
        session.append(tokens)
    assert session.length == 0


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        [{"role": "user"}],
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": "\ud800"}],
        [{"role": 1, "content": "x"}],
    ],
    ids=str,
)
def test_bad_messages_are_refused(model: Model, messages: list[dict[str, str]]) -> None:
    with pytest.raises(errors.PromptError):
        model.chat(messages)


@pytest.mark.parametrize(
    "options",
    [
        {"context": 0},
        {"context": 513},
        {"threads": 0},
        {"kv": "fp8"},
        {"activations": "int4"},
        {"isa": "mmx"},
    ],
    ids=str,
)
def test_bad_options_are_refused(bundle: Path, options: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidOptionError):
        arkinfer.load(bundle, **options).session()  # type: ignore[arg-type]
