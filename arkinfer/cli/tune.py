"""``arkinfer tune``: measure which kernels are faster on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from arkinfer.cli.options import BundlePath, Json, Threads

if TYPE_CHECKING:
    from arkinfer.tuning import Shape, Tuning


def tune(
    bundle: BundlePath,
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="A count of tokens to measure with; may be repeated.",
            show_default="1, 4, 16 and 64",
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(metavar="TOKENS", help="Tokens that are in the context before.")
    ] = 512,
    repeat: Annotated[int, typer.Option(metavar="N", help="Repeats; medians are compared.")] = 5,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure the kernels of a bundle against the runtime's, on this CPU, and use the faster ones.

    The table is written into the bundle's folder. It holds for this kind of CPU;
    'run' and 'bench' follow it, and 'inspect' names it.
    """
    from arkinfer import tuning
    from arkinfer.bundle import Bundle
    from arkinfer.cli import show
    from arkinfer.errors import InvalidOptionError
    from arkinfer.tune import Settings, measure

    given = tuple(tokens or ())
    if any(count < 1 for count in given) or depth < 0 or repeat < 1:
        raise InvalidOptionError("tokens, depth or repeat is too small", "1, 0 and 1, or more")
    settings = Settings(
        tokens=given or Settings.tokens, depth=depth, repeat=repeat, threads=threads or 0
    )
    opened = Bundle.open(bundle)
    with _progress() as progress:
        table = measure(opened, settings, progress)
    tuning.write(opened, table)
    if json:
        show.as_json({"path": str(opened.path / tuning.FILE), **dataclasses.asdict(table)})
        return
    show_table(table)
    print(f"written to {opened.path / tuning.FILE}")


def show_table(table: Tuning) -> None:
    """Print what was measured, a line for each shape and count."""
    from arkinfer.cli import show

    title = (
        f"Milliseconds of all layers on {table.cpu or 'this CPU'}, {table.threads} threads, "
        f"{table.depth} tokens before"
    )
    columns = ["step", "tokens", "compiled", "builtin int8", "builtin fp32", "use int8", "use fp32"]
    rows = [row for shape in table.shapes for row in _rows(shape, table.tokens)]
    show.table(title, columns, rows)


def _rows(shape: Shape, tokens: tuple[int, ...]) -> Iterator[list[str]]:
    for index, count in enumerate(tokens):
        times = [shape.compiled, shape.builtin["int8"], shape.builtin["fp32"]]
        yield [
            shape.shape,
            str(count),
            *(f"{1e3 * seconds[index]:.3f}" for seconds in times),
            shape.use["int8"][index],
            shape.use["fp32"][index],
        ]


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float], None] | None]:
    """A progress bar on stderr, in a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)
