"""Generation above an executor written in Python, through the C callback table."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.cli.answer import stream
from arkinfer.errors import ContextOverflowError, InvalidOptionError, PromptError
from arkinfer.runtime.generation import Generation, Sampling
from arkinfer.runtime.native_session import NativeModel
from arkinfer.runtime.session import Session, common_prefix
from tests.support.scripted import (
    BROKEN,
    END,
    EURO_1,
    EURO_2,
    ND,
    SPACE_E,
    STOP_ID,
    VOCABULARY,
    ZERO,
    A,
    B,
    C,
    Scripted,
    script,
    write_vocabulary_bundle,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> NativeModel:
    path = tmp_path_factory.mktemp("bundle") / "vocabulary.ark"
    return NativeModel(write_vocabulary_bundle(path))


def answer(generation: Generation) -> tuple[str, list[int], str | None]:
    text = "".join(piece.text for piece in generation)
    return text, generation.tokens, generation.finish_reason


def test_greedy_follows_the_logits(model: NativeModel) -> None:
    generation = Generation(model, script(A, B, C), [A], Sampling(max_tokens=3))
    assert answer(generation) == ("abc", [A, B, C], "length")
    assert generation.timings.prompt_tokens == 1
    assert generation.timings.generated_tokens == 3


def test_prompt_is_appended_by_the_first_step_and_then_one_token_each(model: NativeModel) -> None:
    executor = script(A, B, C, after=2)
    generation = Generation(model, executor, [B, C], Sampling(max_tokens=3))
    assert executor.appended == []
    answer(generation)
    assert executor.appended == [[B, C], [A], [B]]


def flat() -> Scripted:
    return Scripted(lambda _: np.zeros(len(VOCABULARY), np.float32))


def test_same_seed_same_tokens(model: NativeModel) -> None:
    def tokens(seed: int) -> list[int]:
        sampling = Sampling(max_tokens=24, temperature=1, seed=seed)
        return answer(Generation(model, flat(), [A], sampling))[1]

    assert tokens(7) == tokens(7)
    assert len({tuple(tokens(seed)) for seed in range(8)}) == 8


def test_greedy_ignores_the_seed(model: NativeModel) -> None:
    runs = [
        answer(Generation(model, script(A, B, C), [A], Sampling(max_tokens=3, seed=seed)))
        for seed in (1, 2)
    ]
    assert runs[0] == runs[1]


def test_stop_id_is_not_part_of_the_answer(model: NativeModel) -> None:
    sampling = Sampling(stop_ids=(STOP_ID,))
    assert answer(Generation(model, script(A, STOP_ID), [A], sampling)) == ("a", [A], "stop")


def test_stop_text_across_tokens_is_not_part_of_the_answer(model: NativeModel) -> None:
    generation = Generation(model, script(A, SPACE_E, ND, B), [A], Sampling(stop=("END",)))
    text, _, reason = answer(generation)
    assert (text, reason) == ("a ", "stop")


def test_text_that_only_starts_like_a_stop_text_is_delivered(model: NativeModel) -> None:
    sampling = Sampling(stop=("END",), max_tokens=3)
    assert answer(Generation(model, script(SPACE_E, B, A), [A], sampling))[0] == " Eba"


def test_characters_are_delivered_whole(model: NativeModel) -> None:
    generation = Generation(model, script(EURO_1, EURO_2, A), [A], Sampling(max_tokens=3))
    assert [piece.text for piece in generation] == ["", "€", "a"]


def test_zero_bytes_and_broken_bytes_survive(model: NativeModel) -> None:
    generation = Generation(model, script(ZERO, BROKEN, A), [A], Sampling(max_tokens=3))
    assert answer(generation)[0] == "\0\ufffda"


def test_full_context_ends_the_answer(model: NativeModel) -> None:
    executor = script(A, context=5)
    text, _, reason = answer(Generation(model, executor, [A], Sampling()))
    assert (text, reason) == ("aaaaa", "context")
    assert executor.length == 5


def test_cancel_between_tokens(model: NativeModel) -> None:
    generation = Generation(model, script(A), [A], Sampling())
    next(generation)
    generation.cancel()
    assert next(generation).finish_reason == "cancelled"
    assert list(generation) == []
    assert generation.tokens == [A]


def test_cancel_from_another_thread(model: NativeModel) -> None:
    started = threading.Event()

    def choose(_: list[int]) -> NDArray[np.float32]:
        started.set()
        cancelled.wait(10)
        return np.zeros(len(VOCABULARY), np.float32)

    cancelled = threading.Event()
    generation = Generation(model, Scripted(choose, 1 << 20), [A], Sampling())

    def cancel() -> None:
        started.wait(10)
        generation.cancel()
        cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    assert answer(generation)[2] == "cancelled"
    thread.join()


def test_what_the_executor_raises_reaches_the_caller(model: NativeModel) -> None:
    class Broken(Exception):
        pass

    def choose(_: list[int]) -> NDArray[np.float32]:
        raise Broken

    with pytest.raises(Broken):
        next(Generation(model, Scripted(choose), [A], Sampling()))


@pytest.mark.parametrize(
    ("prompt", "error"),
    [([], PromptError), ([A] * 65, ContextOverflowError), ([len(VOCABULARY)], InvalidOptionError)],
)
def test_bad_prompts_are_refused_before_anything_runs(
    model: NativeModel, prompt: list[int], error: type[Exception]
) -> None:
    executor = script(A)
    with pytest.raises(error):
        next(Session(model, executor).generate(prompt, Sampling()))
    assert executor.appended == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"seed": 2**64},
        {"stop": ("",)},
        {"stop": ("a\0b",)},
        {"temperature": "hot"},
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        Sampling(**options)
    assert next(iter(options)) in str(caught.value)


def test_session_runs_only_what_is_new(model: NativeModel) -> None:
    executor = script(B, C, after=2)
    session = Session(model, executor)
    first = answer(session.generate([A, A], Sampling(max_tokens=3)))[1]
    assert first == [B, C, C]
    assert session.tokens == executor.tokens == [A, A, B, C]
    executor.appended.clear()
    answer(session.generate([A, A, B, END, A], Sampling(max_tokens=1)))
    assert executor.appended == [[END, A]]
    assert session.tokens == [A, A, B, END, A]


def test_session_repeats_the_last_token_of_a_prompt_that_it_holds(model: NativeModel) -> None:
    executor = script(B, after=2)
    session = Session(model, executor)
    first = answer(session.generate([A, C], Sampling(max_tokens=2)))
    executor.appended.clear()
    assert answer(session.generate([A, C], Sampling(max_tokens=2))) == first
    assert executor.appended == [[C], [B]]


def test_session_append_and_rollback(model: NativeModel) -> None:
    session = Session(model, script(A, context=4))
    assert session.append([A, B, C]).shape == (1, len(VOCABULARY))
    session.rollback(1)
    assert (session.length, session.tokens) == (1, [A])
    with pytest.raises(InvalidOptionError):
        session.rollback(2)
    with pytest.raises(ContextOverflowError):
        session.append([A] * 4)
    assert session.length == 1


def test_common_prefix() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0
    assert common_prefix([1], [1, 2]) == 1


def test_ctrl_c_ends_the_answer_and_not_the_program(model: NativeModel) -> None:
    """The first one only cancels; the program goes on and Ctrl-C means what it did before."""
    outside = signal.getsignal(signal.SIGINT)
    # A shell that starts the tests in the background has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def choose(so_far: list[int]) -> NDArray[np.float32]:
        if len(so_far) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.wait(10)
        logits = np.zeros(len(VOCABULARY), np.float32)
        logits[A] = 1
        return logits

    interrupted = threading.Event()

    class Watched(Generation):
        def cancel(self) -> None:
            super().cancel()
            interrupted.set()

    written: list[str] = []
    generation = Watched(model, Scripted(choose, 1 << 20), [B], Sampling())
    try:
        result = stream(generation, written.append)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)
    assert result.finish_reason == "cancelled"
    assert result.text == "".join(written) == "aaa"
    assert result.token_ids == [A, A, A]


def test_stream_passes_on_what_the_executor_raises(model: NativeModel) -> None:
    def choose(_: list[int]) -> NDArray[np.float32]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream(Generation(model, Scripted(choose), [A], Sampling()), lambda _: None)


def test_stream_stops_when_nobody_can_read_the_answer(model: NativeModel) -> None:
    def write(_: str) -> None:
        raise BrokenPipeError

    generation = Generation(model, script(A, context=1 << 20), [A], Sampling())
    with pytest.raises(BrokenPipeError):
        stream(generation, write)
    assert generation.finish_reason == "cancelled"
