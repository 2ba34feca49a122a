"""``arkinfer run``: one answer, or a chat."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arkinfer.cli.options import (
    Activations,
    ActivationType,
    BundlePath,
    Context,
    Isa,
    Json,
    KernelChoice,
    Kernels,
    KvType,
    On,
    OnChoice,
    Threads,
)
from arkinfer.errors import InputNotFoundError, InvalidOptionError, PromptError

if TYPE_CHECKING:
    from arkinfer.cli.answer import Answer
    from arkinfer.runtime.generation import SamplingArguments
    from arkinfer.runtime.model import Model
    from arkinfer.runtime.session import Session

_SAMPLING = "Sampling (what is not given comes from the bundle)"


def run(
    bundle: BundlePath,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="What to answer. Without it the prompt is read from a pipe, "
            "and in a terminal a chat starts (/exit leaves it).",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System message in front of the prompt.")
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option(
            "--think/--no-think",
            help="Ask a model that can reason to do so, or not to.",
            show_default="the template's",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without chat template.")
    ] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Most tokens to generate.", show_default="until the context ends"
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End the answer before this text; may be repeated."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="0 always takes the most likely token; 1 samples as the model was trained.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Keep the K most likely tokens; 0: all.", rich_help_panel=_SAMPLING
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Keep the most likely tokens that together reach probability P; 1: all.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Keep tokens with at least P times the best one's probability; 0: all.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Make tokens that were there before less likely; 1: off.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The same seed gives the same answer.",
            show_default="random",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    context: Context = None,
    threads: Threads = None,
    kv: KvType = None,
    activations: ActivationType = Activations.int8,
    isa: Isa = None,
    kernels: KernelChoice = Kernels.tuned,
    on: OnChoice = On.faster,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What runs the bundle; onnxruntime is the reference.",
            show_default="the bundle's",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Answer a prompt, or chat, with a bundle.

    The answer goes to stdout as it is generated, speed and memory to stderr.
    Ctrl-C ends the answer.
    """
    if not Path(bundle).exists():
        raise InputNotFoundError(f"no such bundle: {bundle}")
    text = _prompt(prompt, raw)
    if text is None and json:
        raise InvalidOptionError("--json needs a prompt", "PROMPT, or text from a pipe")
    sampling: SamplingArguments = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
    }

    from arkinfer import tuning
    from arkinfer.api import load

    started = time.perf_counter()
    model = load(
        bundle,
        context,
        threads,
        backend,
        kv,
        activations.value,
        isa=isa,
        kernels=kernels.value,
        on=on.value,
    )
    if note := tuning.notice(model.bundle):
        print(f"note: {note}", file=sys.stderr)
    model.sampling(**sampling)  # refuses bad values before the weights are touched
    if text is None:
        from arkinfer.cli import repl

        repl.chat(model, system, think, raw, sampling, started)
        return
    from arkinfer.cli.answer import conversation, open_session, report

    if raw:
        ids = model.encode(text)
    else:
        ids = model.encode_chat(conversation(system, text), think)
    session = open_session(model)
    answer, load_seconds = _answer(model, session, ids, sampling, started, show=not json)
    if json:
        _print_json(answer, load_seconds, session)
    else:
        report([answer], load_seconds, model, session)
    if answer.finish_reason == "cancelled":
        raise typer.Exit(130)


def _prompt(argument: str | None, raw: bool) -> str | None:
    """The prompt's text; None when a chat is to start."""
    text = argument
    if text is None:
        if sys.stdin is None:
            raise PromptError("there is no prompt, and standard input is closed", "PROMPT")
        if sys.stdin.isatty():
            return None
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PromptError(
                f"the prompt is not valid UTF-8 at byte {error.start}", "UTF-8 text"
            ) from None
        text = text.removesuffix("\n").removesuffix("\r")
    if not text or not (raw or text.strip()):
        raise PromptError("the prompt is empty", "some text")
    return text


def _answer(
    model: Model,
    session: Session,
    ids: list[int],
    sampling: SamplingArguments,
    started: float,
    show: bool,
) -> tuple[Answer, float]:
    from arkinfer.cli.answer import end_line, stream, write

    generation = model.generate(ids, session=session, **sampling)
    load_seconds = time.perf_counter() - started
    answer = stream(generation, write if show else _discard)
    if show:
        end_line(answer.text)
    return answer, load_seconds


def _discard(_text: str) -> None:
    pass


def _print_json(answer: Answer, load_seconds: float, session: Session) -> None:
    import dataclasses

    from arkinfer.cli.show import as_json
    from arkinfer.runtime.process import peak_rss_bytes

    timings = answer.timings
    as_json(
        {
            "text": answer.text,
            "token_ids": answer.token_ids,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": timings.prompt_tokens,
            "timings": {
                "load_s": load_seconds,
                "prefill_s": timings.prefill_seconds,
                "decode_s": timings.decode_seconds,
                "prefill_tokens_per_s": timings.prefill_tokens_per_second,
                "decode_tokens_per_s": timings.decode_tokens_per_second,
            },
            "peak_rss_bytes": peak_rss_bytes(),
            "choice": dataclasses.asdict(session.choice) if session.choice else None,
        }
    )
