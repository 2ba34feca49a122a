"""Chat messages to prompt text, through the checkpoint's own template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from arkinfer.errors import PromptError, TokenizerError

# ChatML, which every released MiniCPM4 follows.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    enable_thinking: bool | None = None,
    bos_token: str = "",
    eos_token: str = "",
    **variables: Any,
) -> str:
    """The prompt text of a conversation.

    Templates run in Jinja's immutable sandbox, with the names that Hugging
    Face templates rely on: ``raise_exception``, ``strftime_now``, ``tojson``
    and the loop controls.

    Args:
        template: a Jinja template, or None for ChatML.
        messages: mappings with ``role`` and, for most roles, ``content``.
        add_generation_prompt: end with the header of the assistant's turn.
        enable_thinking: passed to the template unless None, for models that
            can answer with or without reasoning.
        bos_token: the text of the token that starts a sequence.
        eos_token: the text of the token that ends one.
        variables: further names for the template, such as ``tools``.

    Raises:
        PromptError: no messages, or one that has no role or no usable content.
        TokenizerError: the template is not valid, or refuses the messages.
    """
    _check(messages)
    names: dict[str, Any] = dict(variables)
    if enable_thinking is not None:
        names["enable_thinking"] = enable_thinking
    try:
        compiled = _compile(DEFAULT_TEMPLATE if template is None else template)
        return compiled.render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            bos_token=bos_token,
            eos_token=eos_token,
            **names,
        )
    except Exception as error:  # a template can raise anything
        kind = type(error).__name__
        raise TokenizerError(
            f"the chat template failed: {kind}: {str(error)[:300]}",
            remedy="send the prompt without a template (--raw), or mend the template",
        ) from error


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise PromptError("the conversation has no messages", "at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise PromptError(
                f"message {index} has no role", 'messages like {"role": "user", "content": "Hi"}'
            )
        content = message.get("content", "")
        if not (content is None or isinstance(content, (str, list))):
            raise PromptError(
                f"message {index} has content of type {type(content).__name__}", "text"
            )


@lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(template)


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    # Jinja's own filter escapes <, > and &, which a prompt must keep.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
