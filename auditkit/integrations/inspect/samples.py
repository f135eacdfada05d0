"""Our prompts as Inspect's samples, and Inspect's messages as our prompts."""

from __future__ import annotations

from collections.abc import Sequence

from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
)

from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.core.fingerprint import fingerprint
from auditkit.core.prompts import Message, Prompt, Role, Suite

TEXT = "auditkit_text"
"""Marks, in a sample's or a message's metadata, plain text outside any chat."""

_ROLES = {
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}


def suite_dataset(suite: Suite, *, limit: int | None = None) -> MemoryDataset:
    """The prompts of `suite` as Inspect samples, in order: ids kept, the label as target.

    Tags, split, source and licence go into each sample's metadata. Raises NotSupportedYet for a
    prompt that ends in the assistant's words, which a model under test cannot reply to.
    """
    samples = [_sample(prompt, suite) for prompt in suite.prompts[:limit]]
    return MemoryDataset(samples, name=suite.name)


def _sample(prompt: Prompt, suite: Suite) -> Sample:
    if prompt.messages[-1].role in (Role.ASSISTANT, Role.THINKING):
        raise NotSupportedYet(
            f"prompt {prompt.id!r} of the suite {suite.name} ends in the assistant's words",
            help="give Inspect prompts that end in a user's or a tool's message",
        )
    return Sample(
        id=prompt.id,
        input=[_chat_message(message, prompt) for message in prompt.messages],
        target=prompt.label or "",
        metadata={
            "suite": suite.name,
            "suite_digest": suite.digest,
            "tags": list(prompt.tags),
            "split": None if prompt.split is None else prompt.split.value,
            "source": prompt.source or suite.source,
            "licence": prompt.licence or suite.licence,
        },
    )


def _chat_message(message: Message, prompt: Prompt) -> ChatMessage:
    match message.role:
        case Role.SYSTEM:
            return ChatMessageSystem(content=message.content)
        case Role.USER:
            return ChatMessageUser(content=message.content)
        case Role.TEXT:
            return ChatMessageUser(content=message.content, metadata={TEXT: True})
        case Role.ASSISTANT:
            return ChatMessageAssistant(content=message.content)
        case Role.TOOL:
            return ChatMessageTool(content=message.content)
        case Role.THINKING:
            raise NotSupportedYet(
                f"prompt {prompt.id!r} has a message of role thinking, which Inspect keeps inside "
                "the assistant's message",
                help="leave such prompts to auditkit audit",
            )


def prompt_of(messages: Sequence[ChatMessage]) -> Prompt:
    """The conversation that Inspect hands a model; its id is a fingerprint of what it says.

    Raises InvalidInput for what the rules could not place: images, reasoning blocks, tool calls,
    no message at all, or a conversation that ends in the assistant's words.
    """
    if not messages or messages[-1].role == "assistant":
        raise InvalidInput(
            "the conversation is empty or ends in the assistant's words",
            help="a watched model replies to a user's or a tool's message",
        )
    turns = tuple(_message(message) for message in messages)
    plain = [(turn.role.value, turn.content) for turn in turns]
    return Prompt(id=f"inspect-{fingerprint(plain, length=16)}", messages=turns)


def _message(message: ChatMessage) -> Message:
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        raise InvalidInput(
            "the conversation has tool calls, which a watched model does not write",
            help="use a task without tools",
        )
    text = message.content if isinstance(message.content, str) else _text(message.content)
    if message.metadata and message.metadata.get(TEXT):
        return Message(role=Role.TEXT, content=text)
    generated = isinstance(message, ChatMessageAssistant) and message.source == "generate"
    return Message(role=_ROLES[message.role], content=text, generated=generated)


def _text(parts: Sequence[Content]) -> str:
    texts: list[str] = []
    for part in parts:
        if part.type != "text":
            raise InvalidInput(
                f"a message has content of type {part.type}; a watched model reads text only"
            )
        texts.append(part.text)
    return "\n".join(texts)
