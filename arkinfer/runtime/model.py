"""A loaded bundle: text in, text out, and sessions for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from arkinfer import memory
from arkinfer.bundle import Bundle
from arkinfer.errors import PromptError, TokenizerError
from arkinfer.runtime.choice import Choice
from arkinfer.runtime.executor import Executor
from arkinfer.runtime.generation import Generation, Sampling
from arkinfer.runtime.native_session import NativeModel
from arkinfer.runtime.session import Session

if TYPE_CHECKING:
    from arkinfer.kv_types import KvType
    from arkinfer.manifest import Manifest
    from arkinfer.runtime.generation import SamplingArguments
    from arkinfer.tokenizer import Tokenizer

Message = Mapping[str, Any]

# A bundle without a template but with this token follows ChatML.
_CHATML_START = "<|im_start|>"

# Sampling settings that a bundle may bring.
_SEALED_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded, and how it will run.

    Attributes:
        manifest: everything the bundle says about itself.
        digest: SHA-256 that identifies the bundle.
        backend: what runs it.
        context: tokens that a session holds.
        kv: number type of the KV cache; other backends than cpu have their own.
        promised_bytes: memory that the process will need with one session, on the device where
            the CPU may take its place; None for a backend that makes no promise.
    """

    manifest: Manifest
    digest: str
    backend: str
    context: int
    kv: KvType
    promised_bytes: int | None


class Model:
    """A bundle that is ready to answer; made by :func:`arkinfer.load`.

    Attributes:
        bundle: the opened bundle.
        info: what was loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        native: NativeModel,
        make_executor: Callable[[], Executor],
        info: ModelInfo,
        kept_choice: Callable[[], Choice | None] = lambda: None,
    ) -> None:
        self.bundle = bundle
        self.info = info
        self._native = native
        self._make_executor = make_executor
        self._kept_choice = kept_choice

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer.

        Raises:
            TokenizerError: the bundle has none.
        """
        from arkinfer.tokenizer import Tokenizer, read_vocabulary

        settings = self.bundle.manifest.tokenizer
        if settings is None or "tokenizer.json" not in self.bundle.manifest.files:
            raise TokenizerError(
                "the bundle has no tokenizer", remedy="give token ids instead of text"
            )
        return Tokenizer(
            self.bundle.read_text("tokenizer.json"),
            read_vocabulary(self.bundle.file("vocabulary.bin").read_bytes()),
            add_bos=settings.add_bos,
            bos_id=settings.bos_id,
            eos_ids=settings.eos_ids,
            special_ids=settings.special_ids,
        )

    @cached_property
    def chat_template(self) -> str | None:
        """The checkpoint's Jinja template, or None."""
        if "chat_template.jinja" not in self.bundle.manifest.files:
            return None
        return self.bundle.read_text("chat_template.jinja")

    def session(self) -> Session:
        """A new, empty sequence with its own KV cache."""
        return Session(self._native, self._make_executor())

    def kept_choice(self) -> Choice | None:
        """What a session would run on, as far as earlier loads measured it; None without a choice.

        Raises:
            ArkInferError: as :meth:`session`, for what is wrong with the device's name.
        """
        return self._kept_choice()

    def promised_bytes(self, session: Session) -> int | None:
        """Memory that the process will need with this session; None without a promise."""
        choice = session.choice
        if choice is None or choice.on != "cpu" or self.info.promised_bytes is None:
            return self.info.promised_bytes
        info = self.info
        return memory.table(info.manifest, info.context, info.kv, on_cpu=True).total

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, with the BOS token where the model wants one.

        Raises:
            PromptError: the text is empty, or holds unpaired surrogates.
        """
        if not text:
            raise PromptError("the prompt is empty", "some text")
        return self.tokenizer.encode(text)

    def encode_chat(
        self, messages: Sequence[Message], enable_thinking: bool | None = None
    ) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready to be answered.

        The BOS token is put in front where the model wants one and the
        template has not written it already.

        Raises:
            PromptError: there are no messages, or one is not usable.
            TokenizerError: the template cannot be rendered.
        """
        from arkinfer import chat

        check_messages(messages)
        tokenizer = self.tokenizer
        if self.chat_template is None and tokenizer.token_id(_CHATML_START) is None:
            raise TokenizerError(
                "the bundle has no chat template", remedy="send plain text instead (--raw)"
            )
        bos, eos = tokenizer.bos_id, next(iter(tokenizer.eos_ids), None)
        text = chat.render(
            self.chat_template,
            messages,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
            bos_token="" if bos is None else tokenizer.token(bos),
            eos_token="" if eos is None else tokenizer.token(eos),
        )
        return self.encode(text)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        enable_thinking: bool | None = None,
        session: Session | None = None,
        **sampling: Unpack[SamplingArguments],
    ) -> Generation:
        """Answer a conversation.

        Args:
            messages: ``{"role": "user", "content": "Hi"}`` and so on.
            enable_thinking: passed to the chat template; None leaves the template's default.
            session: continues this session, whose common prefix is not run again.
            sampling: see :class:`Sampling`; what is not given comes from the bundle.

        Returns:
            An iterator of :class:`Piece`.

        Raises:
            PromptError, TokenizerError, ContextOverflowError, InvalidOptionError:
                before anything runs.
        """
        return self._generate(self.encode_chat(messages, enable_thinking), session, sampling)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        session: Session | None = None,
        **sampling: Unpack[SamplingArguments],
    ) -> Generation:
        """Continue a text (or token ids) as it is, without a chat template.

        Takes, returns and raises what :meth:`chat` does.
        """
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._generate(ids, session, sampling)

    def sampling(self, **arguments: Unpack[SamplingArguments]) -> Sampling:
        """The bundle's sampling settings under the given ones; None means not given."""
        manifest = self.bundle.manifest
        values: dict[str, Any] = {
            name: int(value) if name == "top_k" else value
            for name, value in manifest.generation.items()
            if name in _SEALED_SETTINGS
        }
        values.update({name: value for name, value in arguments.items() if value is not None})
        stop = values.pop("stop", ())
        values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        if manifest.tokenizer is not None:
            values["stop_ids"] = tuple(manifest.tokenizer.eos_ids)
        return Sampling(**values)

    def close(self) -> None:
        """Unmap the bundle once its sessions are gone too."""
        self._native.close()

    def _generate(
        self, ids: list[int], session: Session | None, sampling: SamplingArguments
    ) -> Generation:
        settings = self.sampling(**sampling)
        return (session or self.session()).generate(ids, settings)


def check_messages(messages: Sequence[Message]) -> None:
    """Check that a conversation can be rendered.

    Raises:
        PromptError: it is empty, or a message has no role or no text, or the
            last user message is blank.
    """
    if not messages:
        raise PromptError("there are no messages", "at least one")
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise PromptError(f"message {index} has no text", "'role' and 'content', both strings")
        if role == "user" and not content.strip():
            raise PromptError("the prompt is empty", "some text")
