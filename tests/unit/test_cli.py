"""The command line: help, answers, and the commands that look at bundles."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arkinfer import kv_types
from arkinfer.bundle import Bundle
from arkinfer.cli import app
from tests.support.command_line import GREEDY, KIND, Run, assert_one_line, stdin

ANSWER_KEYS = {
    "text",
    "token_ids",
    "finish_reason",
    "prompt_tokens",
    "timings",
    "choice",
    "peak_rss_bytes",
}
TIMING_KEYS = {
    "load_s",
    "prefill_s",
    "decode_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
}


def test_help_lists_every_command_and_imports_none(run: Run) -> None:
    for name in [name for name in sys.modules if name.startswith("arkinfer.cli.")]:
        if name.removeprefix("arkinfer.cli.") in app.COMMANDS:
            del sys.modules[name]
    code, out, _ = run("--help")
    assert code == 0
    for name in app.COMMANDS:
        assert f" {name} " in out
        assert f"arkinfer.cli.{name}" not in sys.modules


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_and_option_is_explained(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert app.COMMANDS[name].split()[0] in out
    plain = re.sub(r"[│╭╮╰╯─]", " ", out)
    for option in re.findall(r"^\s+(--[\w-]+)(.*)$", plain, re.MULTILINE):
        # Each option's row goes on with a value's name or words that explain it.
        assert option[1].strip(), option


ISSUE_OPTIONS = """--think --no-think --raw --system --temperature --top-k --top-p --min-p
    --repetition-penalty --seed --max-tokens --stop --context --threads --kv --activations --backend
    --json""".split()


@pytest.mark.parametrize("option", ISSUE_OPTIONS)
def test_run_has_every_option(run: Run, option: str) -> None:
    assert option in run("run", "--help")[1]


def test_version(run: Run) -> None:
    import arkinfer

    assert run("--version") == (0, f"arkinfer {arkinfer.__version__}\n", "")


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "arkinfer", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("arkinfer ")


def test_run_prints_the_answer_and_tells_speed_and_memory_on_stderr(
    run: Run, null_bundle: Path
) -> None:
    code, out, err = run("run", null_bundle, "a", "--raw", "--max-tokens", 3, *GREEDY)
    assert code == 0
    assert out.endswith("\n")
    assert re.search(r"prompt \d+ tokens, [\d.]+ tokens/s; answer 3 tokens", err)
    assert "peak" in err
    assert len(err.splitlines()) == 1


def test_json_has_exactly_the_promised_keys(run: Run, null_bundle: Path) -> None:
    code, out, err = run("run", null_bundle, "hello", "--json", "--max-tokens", 5, *GREEDY)
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert set(answer) == ANSWER_KEYS
    assert set(answer["timings"]) == TIMING_KEYS
    assert len(answer["token_ids"]) == 5
    first = answer["token_ids"][0]
    assert answer["token_ids"] == [first + i for i in range(5)]
    assert answer["finish_reason"] == "length"
    assert answer["prompt_tokens"] > 5
    assert answer["peak_rss_bytes"] > 1 << 20


def test_full_context_is_a_finish_reason(run: Run, null_bundle: Path) -> None:
    _, out, _ = run("run", null_bundle, "a", "--raw", "--json", "--context", 8, *GREEDY)
    answer = json.loads(out)
    assert answer["finish_reason"] == "context"
    assert answer["prompt_tokens"] + len(answer["token_ids"]) == 9


def test_prompt_from_a_pipe_is_the_same_as_an_argument(
    run: Run, null_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", null_bundle, "--json", "--max-tokens", 4, *GREEDY)
    given = json.loads(run(*arguments[:2], "größer 你好", *arguments[2:])[1])
    stdin(monkeypatch, "größer 你好\n".encode())
    piped = json.loads(run(*arguments)[1])
    for answer in (given, piped):
        del answer["timings"], answer["peak_rss_bytes"]
    assert given == piped


def test_system_message_and_thinking_reach_the_template(
    run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    from arkinfer import chat

    render = chat.render

    def spy(template: str | None, messages: Any, **options: Any) -> str:
        seen.append({"messages": messages, **options})
        return render(template, messages, **options)

    monkeypatch.setattr(chat, "render", spy)
    for option, value in (("--think", True), ("--no-think", False), ("--max-tokens=1", None)):
        code, _, _ = run("run", copy, "Q", "--system", "S", "--max-tokens", 1, option)
        assert code == 0
        assert seen[-1]["enable_thinking"] is value
    assert [m["role"] for m in seen[-1]["messages"]] == ["system", "user"]


def test_inspect(run: Run, null_bundle: Path) -> None:
    code, out, _ = run("inspect", null_bundle, "--check")
    assert code == 0
    for text in ("digest", "InfLLM v2", "kv cache", "BlockSparseAttention"):
        assert text in out
    record = json.loads(run("inspect", null_bundle, "--json")[1])
    assert record["digest"] == Bundle.open(null_bundle).digest
    assert record["memory"][-1]["context"] == record["manifest"]["context"]
    assert record["operators"]["ai.arkinfer::SelectBlocks"] == 2


def test_inspect_shows_the_memory_of_any_kv_type(run: Run, null_bundle: Path) -> None:
    for kv in kv_types.NAMES:
        assert f"KV cache in {kv}" in run("inspect", null_bundle, "--kv", kv)[1]
        record = json.loads(run("inspect", null_bundle, "--kv", kv, "--json")[1])
        assert {table["kv"] for table in record["memory"]} == {kv}
    assert f"KV cache in {kv_types.DEFAULT}" in run("inspect", null_bundle)[1]


def test_inspect_check_names_the_damaged_file(run: Run, copy: Path) -> None:
    path = copy / "graph.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "graph.onnx" in assert_one_line(run("inspect", copy, "--check"), "DamagedBundle")


def test_bench_record(run: Run, tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle(KIND)
    arguments = ["--prompt", 16, "--generate", 4, "--depth", 8, "--repeat", 3, "--threads", 1]
    code, out, _ = run("bench", bundle.path, *arguments, "--profile", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["bundle_digest"] == bundle.digest
    assert (record["threads"], record["depth"], len(record["decode_runs"])) == (1, 8, 3)
    assert record["decode_tokens_per_s"] == sorted(record["decode_runs"])[1]
    assert record["bandwidth_fraction"] > 0
    # Every matrix is read once per token; the embedding, a table to look up in, is not.
    embedding = 320 * 256 * 2
    assert record["bytes_per_token"] < bundle.manifest.memory.weights - embedding // 2
    decode = record["profile"]["decode"]
    assert sum(step["share"] for step in decode) == pytest.approx(1)
    # What the steps read is what a token reads, and each layer's step is called once for it.
    assert sum(step["bytes"] or 0 for step in decode) == record["bytes_per_token"]
    layers = [step for step in decode if step["stage"] == "layers.*.gated"]
    assert [step["calls"] for step in layers] == [bundle.manifest.model.num_layers]
    assert all(step["seconds"] > 0 for step in decode)
    assert all(step["bytes"] is None for step in record["profile"]["prefill"])
    code, out, _ = run("bench", bundle.path, *arguments, "--profile")
    assert (code, "matmul" in out, "GB/s" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "x.ark", "Hi", "--kv", "fp8"], "fp8"),
        (["run"], "BUNDLE"),
        (["compile", "x", "--nonsense"], "--nonsense"),
        (["fly"], "fly"),
        (["--fly"], "--fly"),
    ],
)
def test_wrong_options_are_told_in_one_line(run: Run, arguments: list[str], expected: str) -> None:
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: InvalidOption: ")
    assert expected in err
