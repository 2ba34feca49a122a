"""What a process takes is what the bundle's memory table says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arkinfer import kv_types, memory
from arkinfer.bundle import Bundle

CONTEXT = 2048
TEXT = "The quick brown fox jumps over the lazy dog near the old stone bridge. "


def peak(bundle: Path, prompt: str, *options: str) -> dict[str, int]:
    """The ``--json`` object of a run in a process of its own."""
    command = [sys.executable, "-m", "arkinfer", "run", str(bundle), "--raw", "--json"]
    done = subprocess.run(
        [*command, "--temperature", "0", *options],
        input=prompt.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("kv", kv_types.NAMES)
def test_full_context_keeps_the_promise(smollm2_bundle: Path, kv: kv_types.KvType) -> None:
    promised = memory.table(Bundle.open(smollm2_bundle).manifest, CONTEXT, kv).total
    # Fifteen tokens a sentence; the answer fills what the prompt leaves.
    answer = peak(smollm2_bundle, TEXT * (CONTEXT // 17), "--context", str(CONTEXT), "--kv", kv)
    assert answer["finish_reason"] in ("context", "stop")
    assert answer["prompt_tokens"] > 0.8 * CONTEXT
    assert answer["peak_rss_bytes"] == pytest.approx(promised, rel=0.1)


def test_short_prompts_stay_below_the_promise(smollm2_bundle: Path) -> None:
    promised = memory.table(Bundle.open(smollm2_bundle).manifest, CONTEXT).total
    answer = peak(smollm2_bundle, "Hi", "--context", str(CONTEXT), "--max-tokens", "8")
    assert answer["peak_rss_bytes"] <= promised * 1.02
