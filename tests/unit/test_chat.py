"""Chat templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arkinfer import chat, converters
from arkinfer.errors import PromptError, TokenizerError

USER = [{"role": "user", "content": "Hi <b>&</b> 你好"}]
GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2" / "prompts.json"


def test_default_is_chatml() -> None:
    assert chat.render(None, USER) == (
        "<|im_start|>user\nHi <b>&</b> 你好<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.render(None, USER, add_generation_prompt=False) == (
        "<|im_start|>user\nHi <b>&</b> 你好<|im_end|>\n"
    )


def test_smollm2_prompts(smollm2_gguf: Path) -> None:
    files = converters.open(smollm2_gguf).tokenizer
    assert files is not None
    for prompt in json.loads(GOLDEN.read_text(encoding="utf-8")).values():
        assert chat.render(files.chat_template, prompt["messages"]) == prompt["text"]


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "default"), (True, "thinks"), (False, "answers")]
)
def test_thinking_is_passed_through(value: bool | None, expected: str) -> None:
    template = (
        "{% if enable_thinking is defined %}"
        "{{ 'thinks' if enable_thinking else 'answers' }}{% else %}default{% endif %}"
    )
    assert chat.render(template, USER, enable_thinking=value) == expected


def test_what_templates_rely_on() -> None:
    template = """
    {%- for m in messages %}
        {%- if m.role == 'skip' %}{% continue %}{% endif %}
        {{- bos_token + m.content + eos_token }}
    {%- endfor %}
    {{- tools | tojson }}{{ strftime_now('%Y')[:2] }}"""
    messages = [{"role": "skip", "content": "x"}, {"role": "user", "content": "<é>"}]
    text = chat.render(
        template, messages, bos_token="[", eos_token="]", tools=[{"name": "<f> & é"}]
    )
    assert text == '[<é>][{"name": "<f> & é"}]20'


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system message') }}",
        "{% for %}",
        "{{ messages[0].missing.deeper }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(10000000) %}{% endfor %}",
    ],
)
def test_bad_templates_give_one_named_error(template: str) -> None:
    with pytest.raises(TokenizerError, match="template failed"):
        chat.render(template, USER)


@pytest.mark.parametrize(
    "messages", [[], [{"content": "x"}], [{"role": 3}], ["x"], [{"role": "user", "content": 5}]]
)
def test_bad_messages(messages: Any) -> None:
    with pytest.raises(PromptError):
        chat.render(None, messages)
