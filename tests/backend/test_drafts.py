"""Draft trees and synthetic depth through the Python face, with every type of KV cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import arkinfer
from arkinfer import kv_types
from arkinfer.bundle import Bundle
from arkinfer.errors import ContextOverflowError, InvalidOptionError
from arkinfer.runtime.model import Model
from tests.support.scripted import script
from tests.support.tiny_models import SMALL_SPARSE

Make = Callable[..., Bundle]
VOCABULARY = 320
# Two roots; below the second a fork, and a node under each of its arms.
TREE = [(7, -1), (8, -1), (9, 1), (10, 1), (11, 2), (12, 3), (13, 5)]
PATHS = [[0], [1], [1, 2, 4], [1, 3, 5, 6]]
# Logits of a path differ from appended ones by sums in another order. Where a path's token lay in
# another block of 64 than its place after, int8 weights of that block are rounded in other steps;
# and a key that moves by an ulp may take another fp16, int8 or int4 code. Logits reach 5 here, and
# a token that sees a wrong one moves them by 1 and more.
ROUNDING = {"fp32": 2e-5, "fp16": 1e-3, "int8": 0.1, "int4": 0.1}


def drawn(count: int, seed: int = 0) -> list[int]:
    """Token ids."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()
    return tokens


def load(bundle: Bundle, kv: str, **options: Any) -> Model:
    return arkinfer.load(bundle.path, kv=kv, activations="fp32", **options)


def verify(session: Any) -> NDArray[np.float32]:
    tokens, parents = zip(*TREE, strict=True)
    logits: NDArray[np.float32] = session.verify_tree(tokens, parents)
    return logits


@pytest.fixture
def bundle(tiny_bundle: Make) -> Bundle:
    return tiny_bundle("minicpm4-8b", compile={"quant": "none"})


@pytest.mark.parametrize("kv", kv_types.NAMES)
@pytest.mark.parametrize("past", [1, 60, 63, 130])
def test_a_tree_is_its_paths(bundle: Bundle, kv: str, past: int) -> None:
    """Every node's logits, and what follows after any path was accepted."""
    model = load(bundle, kv)
    for path in PATHS:
        session = model.session()
        session.append(drawn(past))
        logits = verify(session)
        assert session.length == past
        tokens = [TREE[node][0] for node in path]
        plain = model.session()
        plain.append(drawn(past))
        expected = plain.append(tokens, all_logits=True)
        np.testing.assert_allclose(logits[path], expected, rtol=0, atol=ROUNDING[kv])
        session.accept(path)
        assert session.tokens == plain.tokens == drawn(past) + tokens
        np.testing.assert_allclose(
            session.append([3, 4], all_logits=True),
            plain.append([3, 4], all_logits=True),
            rtol=0,
            atol=ROUNDING[kv],
        )


@pytest.mark.parametrize("kv", kv_types.NAMES)
def test_accepted_keys_are_the_appended_ones(tiny_bundle: Make, kv: str) -> None:
    """Trees while attention is dense leave what sparse attention later selects from."""
    sparse = SMALL_SPARSE | {"dense_len": 200}
    model = load(tiny_bundle("minicpm4.1-8b", compile={"quant": "none"}, sparse=sparse), kv)
    trees, plain = model.session(), model.session()
    trees.append(drawn(40))
    while trees.length < 190:
        tokens = drawn(6, seed=trees.length)
        trees.verify_tree(tokens, [-1, -1, 0, 1, 3, 3])
        trees.accept([1, 3, 5])
    plain.append(trees.tokens)
    after = drawn(60, seed=9)
    np.testing.assert_allclose(
        trees.append(after, all_logits=True),
        plain.append(after, all_logits=True),
        rtol=0,
        atol=ROUNDING[kv],
    )
    for layer in range(2):
        for chosen, expected in zip(
            trees.selected_blocks(layer), plain.selected_blocks(layer), strict=True
        ):
            assert np.array_equal(chosen, expected)


@pytest.mark.parametrize("kv", kv_types.NAMES)
def test_a_chain_is_an_append(tiny_bundle: Make, kv: str) -> None:
    """Bit for bit, also where attention is sparse and windows end inside the chain."""
    model = load(tiny_bundle("minicpm4.1-8b", sparse=SMALL_SPARSE), kv)
    chained, plain = model.session(), model.session()
    for session in (chained, plain):
        session.append(drawn(150))
    chain = drawn(24, seed=1)
    logits = chained.verify_tree(chain, range(-1, 23))
    assert np.array_equal(logits, plain.append(chain, all_logits=True))
    chained.accept(range(10))
    plain.rollback(160)
    assert chained.tokens == plain.tokens
    assert np.array_equal(chained.append([5]), plain.append([5]))


def test_dropped_trees_leave_nothing(bundle: Bundle) -> None:
    model = load(bundle, "fp16")
    session, plain = model.session(), model.session()
    for each in (session, plain):
        each.append(drawn(70))
    verify(session)
    session.accept([])
    verify(session)
    session.rollback(70)
    with pytest.raises(InvalidOptionError, match="no draft tree"):
        session.accept([0])
    assert session.tokens == drawn(70)
    assert np.array_equal(session.append([5]), plain.append([5]))


def test_hostile_trees_are_refused(bundle: Bundle) -> None:
    session = load(bundle, "fp16", context=64).session()
    session.append(drawn(60))
    for tokens, parents, what in [
        ([1, 2], [-1], "1 parents for 2"),
        ([1, 2], [-1, 1], "parent 1"),
        ([1, 2], [-1, -2], "indices"),
        ([1], [0.5], "indices"),
        ([1], [2**40], "indices"),
        ([VOCABULARY], [-1], "token id 320"),
        ([], [], "no tokens"),
    ]:
        with pytest.raises(InvalidOptionError, match=what):
            session.verify_tree(tokens, parents)  # type: ignore[arg-type]
    with pytest.raises(ContextOverflowError):
        session.verify_tree([1] * 5, [-1] * 5)
    assert session.length == 60
    session.verify_tree([1, 2, 3], [-1, -1, 0])
    for path in ([2], [0, 1], [0, 2, 2], [3], [-1]):
        with pytest.raises(InvalidOptionError, match="path"):
            session.accept(path)
    session.accept([0, 2])
    assert session.tokens == [*drawn(60), 1, 3]


def test_other_executors_say_that_they_cannot(bundle: Bundle) -> None:
    model = load(bundle, "fp16")
    session = type(model.session())(model.session()._model, script(1))
    with pytest.raises(InvalidOptionError, match="draft trees"):
        session.verify_tree([1], [-1])
    with pytest.raises(InvalidOptionError, match="filled"):
        session.fill_random(4)


@pytest.mark.parametrize("kv", kv_types.NAMES)
def test_filled_sessions_are_alike(tiny_bundle: Make, kv: str) -> None:
    """For any number of threads; another seed is another past; they decode and select."""
    bundle = tiny_bundle("minicpm4.1-8b", sparse=SMALL_SPARSE, compile={"context": 1024})
    answers = []
    for threads, seed in ((1, 0), (3, 0), (2, 1)):
        session = load(bundle, kv, threads=threads).session()
        session.fill_random(900, seed)
        assert session.length == 900
        answers.append(session.append(drawn(20), all_logits=True))
        assert np.isfinite(answers[-1]).all()
        assert 0 < len(session.selected_blocks(1)[0]) < 919 // 64
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_fills_are_checked(bundle: Bundle) -> None:
    session = load(bundle, "fp16", context=100).session()
    with pytest.raises(ContextOverflowError, match="at most 100"):
        session.fill_random(101)
    for length, seed in ((-1, 0), (5, -1), (5, 2**64)):
        with pytest.raises(InvalidOptionError):
            session.fill_random(length, seed)
    session.append([1])
    with pytest.raises(InvalidOptionError, match="empty"):
        session.fill_random(5)
