"""The tokenizer of a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkinfer.checkpoint import TokenizerFiles
from arkinfer.config import ModelConfig
from arkinfer.converters import sentencepiece_model, tokenizer_json
from arkinfer.converters.json_file import read_json, read_text
from arkinfer.tokenizer import leading_id, parse


def read(folder: Path, config: ModelConfig) -> TokenizerFiles | None:
    """Read ``tokenizer.json``, or else ``tokenizer.model``; None if there is neither.

    What these do not say (which tokens start and end a text, the chat template) comes
    from ``tokenizer_config.json``, ``chat_template.jinja`` and the model's config.

    Raises:
        TokenizerError: the tokenizer cannot be used, or has more tokens than the model.
        DamagedCheckpointError: a file is not what its name says.
    """
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").exists():
        settings = read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").exists():
        source = read_text(folder / "tokenizer.json")
    elif (folder / "tokenizer.model").exists():
        model = sentencepiece_model.read(folder / "tokenizer.model")
        source = tokenizer_json.from_pieces(model, _added_tokens(settings))
    else:
        return None
    library = parse(source)
    bos = settings.get("bos_token")
    bos_id = library.token_to_id(_content(bos)) if bos else None
    if bos_id is None:
        bos_id = config.bos_id
    eos = settings.get("eos_token")
    eos_id = library.token_to_id(_content(eos)) if eos else None
    eos_ids = config.eos_ids if eos_id is None else (*config.eos_ids, eos_id)
    add_bos = settings.get("add_bos_token")
    if not isinstance(add_bos, bool):
        add_bos = bos_id is not None and leading_id(library) == bos_id
    return tokenizer_json.finish(
        source,
        vocab_size=config.vocab_size,
        chat_template=_chat_template(folder, settings),
        add_bos=add_bos,
        bos_id=bos_id,
        eos_ids=eos_ids,
    )


def _content(token: Any) -> str:
    """A token given as text, or as an object with its text in ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _added_tokens(settings: dict[str, Any]) -> list[tokenizer_json.AddedToken]:
    """The tokens that tokenizer_config.json adds to those of tokenizer.model."""
    decoder = settings.get("added_tokens_decoder")
    found: list[tokenizer_json.AddedToken] = []
    for key, token in decoder.items() if isinstance(decoder, dict) else ():
        text = _content(token)
        if text and key.isascii() and key.isdigit() and len(key) <= 8:
            found.append(tokenizer_json.AddedToken(int(key), text, bool(token.get("special"))))
    return sorted(found, key=lambda token: token.id)


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The template in a file of its own, or in the tokenizer's settings."""
    if (folder / "chat_template.jinja").exists():
        return read_text(folder / "chat_template.jinja")
    template: Any = settings.get("chat_template")
    if template is None and (folder / "chat_template.json").exists():
        template = read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
