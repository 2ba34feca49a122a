"""The command line: what it prints, and how it says what is wrong."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arkinfer import backends, devices, errors, kv_types, memory
from arkinfer.bundle import Bundle
from arkinfer.cli import app, device_views, repl
from arkinfer.cli.app import main
from tests.support.manifests import reseal_manifest
from tests.support.tiny_models import SMALL_SPARSE, write_tiny_hf

KIND = "minicpm4.1-8b"
GREEDY = ("--temperature", 0)
ANSWER_KEYS = {
    "text",
    "token_ids",
    "finish_reason",
    "prompt_tokens",
    "timings",
    "peak_rss_bytes",
}
TIMING_KEYS = {
    "load_s",
    "prefill_s",
    "decode_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("inspect", path)`` gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def null_bundle(tiny_bundle: Callable[..., Bundle]) -> Path:
    """A bundle whose answers are the tokens after the prompt's last one."""
    return tiny_bundle(KIND, compile={"target": "null"}, sparse=SMALL_SPARSE).path


@pytest.fixture
def copy(null_bundle: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(null_bundle, tmp_path / "copy.ark")


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def assert_one_line(result: tuple[int, str, str], name: str) -> str:
    """Exit code 1, nothing on stdout, one ``error: name: ...`` on stderr; gives that line."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"error: {name}: [^\n]+\n", err), err
    return err


# ---- help and dispatch


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


# ---- answers


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


# ---- chat


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``ask(line, ...)``: a terminal in which these lines are typed; an exception is raised."""

    def prepare(*lines: str | type[BaseException]) -> None:
        remaining: Iterator[str | type[BaseException]] = iter([*lines, EOFError])

        def read(_prompt: str) -> str:
            line = next(remaining)
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr(builtins, "input", read)
        monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())

    return prepare


def test_chat_keeps_what_it_has_computed(
    run: Run, null_bundle: Path, ask: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from arkinfer.backends.null import NullExecutor

    appended: list[list[int]] = []
    append = NullExecutor.append

    def spy(self: NullExecutor, tokens: Any, all_logits: bool = False) -> Any:
        appended.append(list(tokens))
        return append(self, tokens, all_logits)

    monkeypatch.setattr(NullExecutor, "append", spy)
    ask("abcdefghijklmnopqrstuvwxyz", "", "A", "/exit")
    code, out, err = run("run", null_bundle, "--max-tokens", 1)
    assert code == 0
    assert len(out.splitlines()) == 2
    # Two prompts; the second holds the first one, and only its new tokens are run.
    assert len(appended) == 2
    assert len(appended[1]) < len(appended[0])
    assert re.search(r"answer 2 tokens", err)


def test_chat_goes_on_after_an_error_and_after_ctrl_c(
    run: Run, null_bundle: Path, ask: Callable[..., None]
) -> None:
    ask("x" * 600, KeyboardInterrupt, "a")
    code, out, err = run("run", null_bundle, "--max-tokens", 1)
    assert code == 0
    assert len(out.splitlines()) == 1
    assert "error: ContextOverflow: " in err


def test_chat_needs_no_json(run: Run, null_bundle: Path, ask: Callable[..., None]) -> None:
    ask()
    assert_one_line(run("run", null_bundle, "--json"), "InvalidOption")


def test_reasoning_is_not_part_of_the_history() -> None:
    assert repl.without_reasoning("<think>\nlong</think>\n\nshort") == "short"
    assert repl.without_reasoning("short") == "short"


# ---- what is wrong, in one line


def test_missing_paths(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    for command in ("run", "inspect", "bench"):
        assert str(missing) in assert_one_line(run(command, missing), "InputNotFound")
    assert_one_line(run("compile", missing, "--target", "null"), "InputNotFound")
    assert_one_line(run("verify", missing, "--against", missing), "InputNotFound")


def test_folder_without_config(run: Run, tmp_path: Path) -> None:
    assert_one_line(
        run("compile", tmp_path, "--target", "null", "-o", tmp_path / "x.ark"), "CheckpointFormat"
    )
    assert_one_line(run("run", tmp_path, "hi"), "InvalidBundle")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del config[key]
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def test_damaged_checkpoints(run: Run, tmp_path: Path) -> None:
    def damaged(name: str, change: Callable[[Path], object]) -> tuple[int, str, str]:
        folder = write_tiny_hf(tmp_path / name, KIND)
        change(folder)
        return run("compile", folder, "--target", "null", "-o", tmp_path / f"{name}.ark")

    def truncate(folder: Path) -> None:
        path = folder / "model.safetensors"
        os.truncate(path, path.stat().st_size - 1000)

    def claim_a_long_header(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])

    unknown = damaged("type", lambda f: edit_config(f, model_type="unheard"))
    assert "unheard" in assert_one_line(unknown, "UnknownModelType")
    assert_one_line(damaged("short", truncate), "DamagedCheckpoint")
    assert_one_line(damaged("header", claim_a_long_header), "DamagedCheckpoint")
    shape = damaged("shape", lambda f: edit_config(f, intermediate_size=8))
    assert "mlp.down_proj.weight" in assert_one_line(shape, "CheckpointTensors")
    rope = damaged("rope", lambda f: edit_config(f, rope_scaling={"rope_type": "longrope"}))
    assert "factor" in assert_one_line(rope, "Config")
    assert not list(tmp_path.glob("*.ark"))


def test_bad_compile_options(
    run: Run, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = tiny_checkpoint(KIND), tmp_path / "x.ark"
    for option, value, name in (
        ("--quant", "w3g7", "UnsupportedQuantization|InvalidOption"),
        ("--target", "toaster", "UnknownBackend"),
        ("--context", "0", "InvalidOption"),
        ("--chunk", "0", "InvalidOption"),
    ):
        assert_one_line(
            run("compile", folder, "--target", "null", option, value, "-o", output), f"(?:{name})"
        )
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    taken = run("compile", folder, "--target", "null", "-o", tmp_path / "taken")
    assert_one_line(taken, "OutputExists")
    assert (tmp_path / "taken" / "file").exists()


@pytest.mark.parametrize("name", ["manifest.json", "vocabulary.bin", "DIGEST", "tokenizer.json"])
def test_flipped_byte(run: Run, copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert name in assert_one_line(run("run", copy, "hi"), "DamagedBundle")


def test_bundle_of_a_newer_version(run: Run, copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    assert "99" in assert_one_line(run("run", copy, "hi"), "BundleVersion")


def test_bad_prompts(run: Run, null_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_one_line(run("run", null_bundle, ""), "Prompt")
    assert_one_line(run("run", null_bundle, " \n"), "Prompt")
    assert_one_line(run("run", null_bundle, "", "--raw"), "Prompt")
    assert_one_line(run("run", null_bundle, "\udcff"), "Prompt")
    for data in (b"", b"\n", b"ab\xff\n"):
        stdin(monkeypatch, data)
        assert_one_line(run("run", null_bundle), "Prompt")


def test_prompt_longer_than_the_context(run: Run, null_bundle: Path) -> None:
    line = assert_one_line(run("run", null_bundle, "abc" * 40, "--context", 64), "ContextOverflow")
    assert "64" in line


@pytest.mark.parametrize(
    "option",
    [
        ["--temperature", "-1"],
        ["--top-p", "0"],
        ["--top-k", "-1"],
        ["--min-p", "2"],
        ["--repetition-penalty", "0"],
        ["--max-tokens", "0"],
        ["--seed", "-1"],
        ["--stop", ""],
        ["--threads", "0"],
        ["--context", "0"],
        ["--context", "999999"],
    ],
)
def test_bad_run_options(run: Run, null_bundle: Path, option: list[str]) -> None:
    assert_one_line(run("run", null_bundle, "hi", *option), "InvalidOption")


def test_unknown_backend(run: Run, null_bundle: Path) -> None:
    line = assert_one_line(run("run", null_bundle, "hi", "--backend", "toaster"), "UnknownBackend")
    assert "null" in line


def test_context_larger_than_memory(
    run: Run, tiny_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle(KIND, compile={"context": 32768})
    table = memory.table(bundle.manifest, 8192)
    monkeypatch.setattr(memory, "available_memory", lambda: table.total - table.process)
    line = assert_one_line(run("run", bundle.path, "hi"), "MemoryBudget")
    assert "8192" in line
    code, _, _ = run("run", bundle.path, "hi", "--context", 8192, "--max-tokens", 1)
    assert code == 0


def test_missing_extra_names_the_command_that_installs_it(
    run: Run, tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else find(name, *a)
    )
    line = assert_one_line(
        run("compile", tiny_checkpoint(KIND), "-o", tmp_path / "x.ark"), "MissingExtra"
    )
    assert "pip install 'arkinfer[compile]'" in line


@pytest.mark.parametrize("position", [0, 1, 3])
def test_debug_shows_where(run: Run, tmp_path: Path, position: int) -> None:
    arguments = ["run", str(tmp_path / "nothing"), "hi"]
    arguments.insert(position, "--debug")
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: InputNotFound: ")


def test_debug_after_two_dashes_is_a_prompt(run: Run, null_bundle: Path) -> None:
    code, _, err = run("run", "--max-tokens", 1, null_bundle, "--", "--debug")
    assert (code, "Traceback" in err) == (0, False)


def test_errors_are_one_line_whatever_they_quote() -> None:
    hostile = errors.ConfigError("a\nb\x1b[31m\x00")
    assert app.describe(hostile) == "error: Config: a b\\x1b[31m\\x00"
    assert app.describe(ValueError("x\ny")).startswith("error: Internal: ValueError: x y;")
    full = OSError(28, "No space left on device", "/x")
    assert app.describe(full) == "error: Storage: No space left on device: /x"


# ---- the other commands


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


def test_devices(run: Run) -> None:
    code, out, _ = run("devices")
    assert (code, "cpu" in out) == (0, True)
    record = json.loads(run("devices", "--json")[1])
    assert "cpu" in [target["name"] for target in record["targets"]]
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["isas"][-1] == "scalar"


def test_devices_are_plain_lines_off_a_terminal(run: Run) -> None:
    lines = run("devices")[1].splitlines()
    for profile in devices.profiles():
        (line,) = (line for line in lines if line.startswith(f"{profile.name} "))
        assert line.endswith(profile.description)
        assert profile.default.backend in line
        absent = profile.default.backend not in backends.names()
        assert ("(not there)" in line) == absent


def test_one_device_is_shown_with_its_sources(run: Run) -> None:
    code, out, _ = run("devices", "rk3588")
    assert code == 0
    profile = devices.find("rk3588")[0]
    texts = [*profile.bandwidth.sources, *profile.units["gpu"].sources]
    assert all(text in out for text in texts)
    assert re.search(r"memory bandwidth +33\.8 GB/s", out)
    assert re.search(r"gpu fp16 +not known", out)
    assert re.search(r"gpu shared memory +32768 bytes \?", out), "what nobody could check is marked"
    record = json.loads(run("devices", "rk3588", "--json")[1])["profile"]
    assert record["units"]["cpu"]["peak"]["int8"]["value"] == 0.614
    assert record["bandwidth"]["sources"] == list(profile.bandwidth.sources)


def test_detect_shows_this_machine_alone(run: Run) -> None:
    out = run("devices", "--detect")[1]
    assert "This machine" in out and "jetson" not in out
    assert set(json.loads(run("devices", "--detect", "--json")[1])) == {"machine"}


def test_predictions_for_one_device(run: Run) -> None:
    arguments = ("raspberry-pi-5", "--model", "MiniCPM4.1-8B", "--context", 131072)
    code, out, _ = run("devices", *arguments)
    assert code == 0
    assert "A prediction, not a measurement" in out
    assert "60% of the bandwidth" in out
    record = json.loads(run("devices", *arguments, "--json")[1])
    assert record["model"]["kv"] == "fp16", "nobody gets another type unasked"
    assert [one["context"] for one in record["predictions"]] == [2048 << i for i in range(7)]
    first, last = record["predictions"][0], record["predictions"][-1]
    # Sparse attention: 64 times the text, hardly any slower.
    assert 0.8 < last["decode_tokens_per_s"] / first["decode_tokens_per_s"] < 1
    assert first["fits_in"] == 8 << 30
    limit = 17e9 / first["bytes_per_token"]
    assert 0.5 * limit < first["decode_tokens_per_s"] < 0.6 * limit
    dense = json.loads(run("devices", *arguments, "--sparse", "off", "--json")[1])
    assert dense["predictions"][-1]["decode_tokens_per_s"] < last["decode_tokens_per_s"] / 2
    int8 = json.loads(run("devices", *arguments, "--kv", "int8", "--json")[1])
    assert int8["predictions"][-1]["memory"] < last["memory"]


def test_predictions_for_all_devices(run: Run) -> None:
    record = json.loads(run("devices", "--model", "MiniCPM4-0.5B", "--json")[1])
    rows = {row["device"]: row for row in record["devices"]}
    assert set(rows) == {p.name for p in devices.profiles() if not p.generic}
    fast, slow = rows["h100"]["predictions"], rows["raspberry-pi-5"]["predictions"]
    assert [one["context"] for one in fast] == [4096, 32768]
    assert fast[0]["decode_tokens_per_s"] > 5 * slow[0]["decode_tokens_per_s"]
    assert rows["snapdragon-8-elite"]["predictions"][0]["prefill_tokens_per_s"] is None
    out = run("devices", "--model", "MiniCPM4-0.5B")[1]
    assert all(name in out for name in rows)


def test_a_weight_beyond_the_largest_allocation_is_told(run: Run) -> None:
    arguments = ("--model", "MiniCPM4-8B", "--quant", "none")
    assert "The largest weight has" not in run("devices", "snapdragon-8-elite", *arguments)[1]
    record = json.loads(run("devices", "snapdragon-8-elite", *arguments, "--json")[1])
    record["largest_allocation"] = record["model"]["largest_tensor"] - 1
    with contextlib.redirect_stdout(io.StringIO()) as out:
        device_views.show_prediction(record)
    assert "The largest weight has" in out.getvalue()


def test_predictions_from_measurements(run: Run, tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle(KIND)
    record = json.loads(run("devices", "--measure", "--model", bundle.path, "--json")[1])
    assert record["assumed"]["origin"] == "measured here"
    measured = record["machine"]["measured"]
    assert record["assumed"]["bandwidth_bytes_per_s"] == measured["bandwidth"] > 0
    assert measured["int8"] >= measured["fp32"] > 0
    assert record["predictions"][0]["decode_tokens_per_s"] > 0
    assert "measured" in run("devices", "cpu", "--measure", "--model", bundle.path)[1]


@pytest.mark.parametrize(
    ("arguments", "name", "text"),
    [
        (["abacus"], "UnknownDevice", "rk3588"),
        (["h100:cpu"], "UnknownDevice", "h100:gpu"),
        (["gone.toml"], "DeviceProfile", "gone.toml cannot be read"),
        (["cpu", "--model", "MiniCPM4-8B"], "InvalidOption", "--measure"),
        (["h100", "--measure"], "InvalidOption", "not this machine"),
        (["--kv", "int8"], "InvalidOption", "--model"),
        (["h100", "--model", "GPT-5"], "InputNotFound", "MiniCPM4.1-8B"),
        (["h100", "--model", "MiniCPM4-8B", "--context", 1 << 20], "InvalidOption", "131072"),
        (["h100", "--model", "MiniCPM4-8B", "--sparse", "some"], "InvalidOption", "force"),
    ],
)
def test_devices_says_what_is_wrong(
    run: Run, arguments: list[object], name: str, text: str
) -> None:
    assert text in assert_one_line(run("devices", *arguments), name)


def test_compiling_for_a_device(
    run: Run, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "x.ark"
    arguments = (tiny_checkpoint(KIND), "-o", output, "--context", 128)
    for target in ("raspberry-pi-5", "jetson-orin:cpu"):
        assert run("compile", *arguments, "--target", target)[0] == 0
        manifest = Bundle.open(output).manifest
        profile = devices.find(target)[0]
        assert (manifest.backend, manifest.device["name"]) == ("cpu", target)
        assert (manifest.device["arch"], manifest.device["features"]) == (
            "aarch64",
            ["neon", "dotprod"],
        )
        assert manifest.kv is None  # a recommended type is shown, and taken only when asked for
        assert manifest.quantization.requested == profile.quantization
    assert run("compile", *arguments, "--target", "raspberry-pi-5", "--kv", "fp32")[0] == 0
    assert Bundle.open(output).manifest.kv == "fp32"


def test_inspect_predicts_for_the_device(
    run: Run, tiny_bundle: Callable[..., Bundle], null_bundle: Path
) -> None:
    bundle = tiny_bundle(KIND, compile={"target": "raspberry-pi-5"})
    record = json.loads(run("inspect", bundle.path, "--json")[1])["predicted"]
    assert (record["device"], record["model"]["kv"]) == ("raspberry-pi-5", "fp16")
    assert record["predictions"][0]["decode_tokens_per_s"] > 0
    assert "Predicted for raspberry-pi-5" in run("inspect", bundle.path)[1]
    assert json.loads(run("inspect", null_bundle, "--json")[1])["predicted"] is None


def test_a_hostile_bundle_names_no_file(
    run: Run, tiny_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_bundle(KIND).path, tmp_path / "copy.ark")
    manifest = Bundle.open(copy).manifest
    for name in ("/etc/passwd.toml", "h100.toml", "h100:npu", 7):
        reseal_manifest(copy, replace(manifest, device={"name": name}).to_json())
        code, out, _ = run("inspect", copy)
        assert (code, "Predicted" in out) == (0, False)


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
