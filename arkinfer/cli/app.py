"""Entry point of the ``arkinfer`` command: dispatch, and how errors are told."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from arkinfer import __version__
from arkinfer.errors import ArkInferError, InvalidOptionError

# Typer exports this error's children only.
_UsageError: Any = typer.BadParameter.__base__

# name -> what it does. The module arkinfer.cli.NAME holds the function NAME; it is imported
# only when the command runs.
COMMANDS = {
    "compile": "Turn a checkpoint into a bundle.",
    "run": "Answer a prompt, or chat, with a bundle.",
    "inspect": "Show what is in a bundle and the memory it needs.",
    "verify": "Compare every stage of a bundle with the reference.",
    "devices": "List the targets, and describe this machine.",
    "tune": "Measure which kernels are faster here, and use those.",
    "bench": "Measure prefill and decode speed.",
}
_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_EPILOG = (
    "'arkinfer COMMAND --help' explains a command. First steps: 'arkinfer compile MODEL_FOLDER "
    "-o model.ark', then 'arkinfer run model.ark'. --debug, anywhere, shows where an error arose."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 is success, 1 an error that was told in one line, and 130 an interruption.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in (given[: given.index("--")] if "--" in given else given)
    if debug:
        given.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character of an answer is no reason to stop.
            stream.reconfigure(errors="replace")
    try:
        if given and given[0] in COMMANDS:
            _run(_command(given[0]), f"arkinfer {given[0]}", given[1:])
        else:
            _run(_root(), "arkinfer", given or ["--help"])
        sys.stdout.flush()
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone; keep the interpreter from writing to it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(describe(error), file=sys.stderr)
        return 1


def describe(error: Exception) -> str:
    """``error: Name: what is wrong`` in one line."""
    if isinstance(error, ArkInferError):
        name, text = error.name, str(error)
    elif isinstance(error, MemoryError):
        name, text = "MemoryBudget", "the process ran out of memory; ask for a smaller --context"
    elif isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        name, text = "Storage", f"{error.strerror or error}{where}"
    else:
        name, text = "Internal", f"{type(error).__name__}: {error}; --debug shows where"
    return f"error: {name}: {one_line(text)}"


def one_line(text: str) -> str:
    """The text without line breaks and control characters, which may come from a hostile file."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words)


def _run(app: typer.Typer, name: str, arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except _UsageError as error:
        text = error.format_message().rstrip(".")
        raise InvalidOptionError(text, remedy=f"'{name} --help' lists the options") from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    if isinstance(code, int) and code:
        raise SystemExit(code)


def _command(name: str) -> typer.Typer:
    function = getattr(importlib.import_module(f"arkinfer.cli.{name}"), name)
    app = typer.Typer(add_completion=False, context_settings=_HELP_OPTIONS)
    app.command(name=name)(function)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"arkinfer {__version__}")
        raise typer.Exit


def _root() -> typer.Typer:
    """The app that ``arkinfer --help`` shows; the commands themselves run through main()."""
    app = typer.Typer(
        add_completion=False,
        epilog=_EPILOG,
        context_settings=_HELP_OPTIONS,
        help="Compile MiniCPM and Llama checkpoints into bundles, and run them.",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
        debug: bool = typer.Option(False, "--debug", help="Show where an error arose."),
    ) -> None:
        pass

    for name, summary in COMMANDS.items():
        app.command(name=name, help=summary)(lambda: None)
    return app


if __name__ == "__main__":
    sys.exit(main())
