"""Token ids of a rendered chat → whose words they are, as a rendering of the same chat would say.

The text is cut along what the template writes around messages, and the cut is believed only if
rendering it gives exactly the same token ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models.chat_skeleton import build_skeleton, chat_turns
from auditkit.models.rendering import Renderer

_PROBES = (
    (Role.USER, Role.ASSISTANT, Role.USER),
    (Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER),
    (Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT, Role.USER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marks:
    """What the template writes: before the first message (`leads`), before and after others."""

    leads: tuple[tuple[str, Role], ...]
    headers: tuple[tuple[str, Role], ...]
    trailers: dict[Role, tuple[str, ...]]
    opening: str


class ChatReader:
    """Reads chats back that were rendered with one tokenizer and its template."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._marks: _Marks | None = None

    def read(self, ids: list[int], prompt_id: str) -> TokenizedPrompt | None:
        """The chat that renders to `ids`, with or without a generation prompt; None if none does.

        A chat whose last message has not ended (a reply to be carried on) is read too.
        """
        if not ids or self._renderer.tokenizer.chat_template is None:
            return None
        if not self._renderer.special_ids.intersection(ids):
            return None
        marks = self._marks = self._marks or self._learn()
        text = self._renderer.decode(ids)
        for lead, role in marks.leads:
            if not text.startswith(lead):
                continue
            read = _cut(text, len(lead), role, marks)
            if read is None:
                continue
            messages, opened = read
            found = self._confirmed(ids, messages, opened, prompt_id)
            if found is not None:
                return found
        return None

    def _confirmed(
        self, ids: list[int], messages: Sequence[Message], opened: bool, prompt_id: str
    ) -> TokenizedPrompt | None:
        prompt = Prompt(id=prompt_id, messages=tuple(messages))
        try:
            rendered = self._renderer.render(prompt, generation_prompt=opened)
        except InvalidInput:
            return None
        if list(rendered.ids[: len(ids)]) != ids:
            return None
        n = len(ids)
        return replace(
            rendered,
            ids=rendered.ids[:n],
            texts=rendered.texts[:n],
            roles=rendered.roles[:n],
            messages=rendered.messages[:n],
            masks=rendered.masks[:n],
            generated=rendered.generated[:n],
        )

    def _learn(self) -> _Marks:
        leads: dict[tuple[str, Role], None] = {}
        headers: dict[tuple[str, Role], None] = {}
        trailers: dict[Role, dict[str, None]] = {}
        for roles in _PROBES:
            try:
                skeleton = build_skeleton(
                    roles, self._renderer.render_chat, self._renderer.is_special
                )
            except InvalidInput:
                continue
            for place, index in enumerate(skeleton.shown):
                parts = skeleton.before[place]
                if place == 0:
                    leads["".join(text for text, _, _ in parts), roles[index]] = None
                    continue
                (trailer, ended, _), (header, role, _) = parts
                trailers.setdefault(ended, {})[trailer] = None
                headers[header, role] = None
            text, role, _ = skeleton.after[-1]
            trailers.setdefault(role, {})[text] = None
        return _Marks(
            leads=tuple(leads),
            headers=tuple(h for h in headers if h[0]),
            trailers={role: tuple(texts) for role, texts in trailers.items()},
            opening=self._opening(),
        )

    def _opening(self) -> str:
        turns = chat_turns((Role.USER,), ("\ue000",))
        try:
            closed = self._renderer.render_chat(turns, False)
            opened = self._renderer.render_chat(turns, True)
        except InvalidInput:
            return ""
        return opened[len(closed) :] if opened.startswith(closed) else ""


def _cut(text: str, start: int, role: Role, marks: _Marks) -> tuple[list[Message], bool] | None:
    """Messages from character `start` on, and whether the text ends in a generation prompt."""
    messages: list[Message] = []
    while True:
        end = _next_border(text, start, role, marks)
        if end is None:  # a reply that is to be carried on; markup in it would be a broken chat
            rest = text[start:]
            ends = (trailer.strip() for trailer in marks.trailers.get(role, ()))
            if role is not Role.ASSISTANT or any(end and end in rest for end in ends):
                return None
            messages.append(Message(role=role, content=rest))
            return messages, False
        content_end, after, following = end
        messages.append(Message(role=role, content=text[start:content_end]))
        if after == len(text):
            return messages, False
        if marks.opening and text[after:] == marks.opening:
            return messages, True
        if following is None:
            return None
        header, role = following
        start = after + len(header)


def _next_border(
    text: str, start: int, role: Role, marks: _Marks
) -> tuple[int, int, tuple[str, Role] | None] | None:
    """Where the message ends, where its trailer ends, and the header that follows."""
    for trailer in marks.trailers.get(role, ()):
        if not trailer:
            continue
        for match in re.finditer(re.escape(trailer), text[start:]):
            after = start + match.end()
            if after == len(text) or text[after:] == marks.opening:
                return start + match.start(), after, None
            for header in _headers(marks):
                if text.startswith(header[0], after):
                    return start + match.start(), after, header
    return None


def _headers(marks: _Marks) -> Iterator[tuple[str, Role]]:
    # The longest first: one header may begin another.
    yield from sorted(marks.headers, key=lambda header: -len(header[0]))
