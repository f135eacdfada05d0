"""Harvesting from a tiny model: the right rows, and the same rows after a kill."""

from __future__ import annotations

import json

import pytest
import torch

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenMask
from auditkit.training import ActivationStore, HarvestEvent, check_aligned, harvest_activations
from auditkit.training.activations import harvest
from tests.tiny import WORDS, tiny_model

SHALLOW = HookPoint.parse("blocks.0.hook_resid_post")
DEEP = HookPoint.parse("blocks.1.hook_resid_post")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def text(number: int, words: int, source: str = "books") -> Prompt:
    content = " ".join(WORDS[(7 * number + i) % len(WORDS)] for i in range(words))
    message = Message(role=Role.TEXT, content=content)
    return Prompt(id=f"text-{number}", messages=(message,), source=source)


def chat(number: int) -> Prompt:
    messages = (
        Message(role=Role.USER, content="what is the word"),
        Message(role=Role.ASSISTANT, content="the word is good"),
    )
    return Prompt(id=f"chat-{number}", messages=messages, source="chat")


def mixed(n: int) -> list[Prompt]:
    return [chat(i) if i % 5 == 4 else text(i, 3 + (11 * i) % 40) for i in range(n)]


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_are_the_activations_of_unmasked_tokens_in_document_order(model, tmp_path):
    documents = mixed(7)
    stores = harvest_activations(model, documents, {DEEP: tmp_path}, context=64, batch_tokens=128)
    expected = []
    for document in documents:
        rendered = model.render(document)
        x = model.capture(model.pad([rendered]), [DEEP])[DEEP][0]
        keep = torch.tensor([mask == TokenMask.NONE for mask in rendered.masks])
        assert 0 < int(keep.sum()) < len(rendered)
        expected.append(x[keep])
    whole = torch.cat(expected)
    found = stores[DEEP].rows(torch.arange(len(stores[DEEP])))
    torch.testing.assert_close(found, whole, rtol=2e-3, atol=2e-3)
    meta = stores[DEEP].meta
    assert {s.name for s in meta.sources} == {"books", "chat"}
    assert sum(s.tokens for s in meta.sources) == len(whole)
    assert meta.model["name"] == "tiny-0"


def test_long_text_is_cut_into_windows_led_by_bos(model):
    document = text(0, 25)
    whole = model.render(document)
    windows = list(harvest._windows(model, document, 10))
    assert all(len(w) <= 10 for w in windows)
    assert all(w.ids[0] == whole.ids[0] for w in windows)
    assert all(w.masks[0] & TokenMask.BOS for w in windows)
    assert sum((w.ids[1:] for w in windows), ()) == whole.ids[1:]
    assert sum((w.masks[1:] for w in windows), ()) == whole.masks[1:]


def test_a_long_chat_is_cut_off(model):
    windows = list(harvest._windows(model, chat(0), 12))
    assert [len(w) for w in windows] == [12]


class Killed(Exception):
    pass


def test_a_killed_harvest_resumes_to_the_same_content(model, tmp_path, monkeypatch):
    monkeypatch.setattr(harvest, "BLOCK_DOCUMENTS", 4)
    documents = mixed(22)

    def run(name: str, progress=None):
        folders = {SHALLOW: tmp_path / name / "a", DEEP: tmp_path / name / "b"}
        harvest_activations(
            model, documents, folders, context=16, max_tokens=300, progress=progress
        )

    run("whole")
    for after in (1, 2, 1):
        seen: list[HarvestEvent] = []

        def die(event: HarvestEvent, seen=seen, after=after) -> None:
            seen.append(event)
            if len(seen) == after:
                raise Killed

        with pytest.raises(Killed):
            run("cut", die)
    run("cut")
    for folder in ("a", "b"):
        assert content(tmp_path / "cut" / folder) == content(tmp_path / "whole" / folder)


def test_a_kill_between_two_hook_points_commits_loses_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(harvest, "BLOCK_DOCUMENTS", 4)
    documents = mixed(10)
    folders = {SHALLOW: tmp_path / "a", DEEP: tmp_path / "b"}
    commit = harvest.ActivationWriter.commit

    def dying(self):
        if self.folder.name == "b" and self._documents == 8:
            raise Killed
        commit(self)

    monkeypatch.setattr(harvest.ActivationWriter, "commit", dying)
    with pytest.raises(Killed):
        harvest_activations(model, documents, folders, context=32)
    monkeypatch.setattr(harvest.ActivationWriter, "commit", commit)
    harvest_activations(model, documents, folders, context=32)
    whole = {SHALLOW: tmp_path / "c", DEEP: tmp_path / "d"}
    harvest_activations(model, documents, whole, context=32)
    assert content(tmp_path / "a") == content(tmp_path / "c")
    assert content(tmp_path / "b") == content(tmp_path / "d")


def test_max_tokens_is_exact_and_a_complete_folder_is_left_alone(model, tmp_path):
    documents = mixed(12)
    stores = harvest_activations(model, documents, {DEEP: tmp_path}, max_tokens=50)
    assert len(stores[DEEP]) == 50
    assert stores[DEEP].meta.complete
    before = content(tmp_path)
    events: list[HarvestEvent] = []
    harvest_activations(model, documents, {DEEP: tmp_path}, max_tokens=50, progress=events.append)
    assert content(tmp_path) == before
    assert events == []


def test_a_hook_point_added_later_is_aligned_with_the_first(model, tmp_path):
    documents = mixed(9)
    first = harvest_activations(model, documents, {DEEP: tmp_path / "a"}, max_tokens=60)[DEEP]
    events: list[HarvestEvent] = []
    both = harvest_activations(
        model,
        documents,
        {DEEP: tmp_path / "a", SHALLOW: tmp_path / "b"},
        max_tokens=60,
        progress=events.append,
    )
    check_aligned(both[SHALLOW], both[DEEP])
    check_aligned(first, both[SHALLOW])
    assert {event.hook_points for event in events} == {1}
    together = harvest_activations(
        model, documents, {DEEP: tmp_path / "c", SHALLOW: tmp_path / "d"}, max_tokens=60
    )
    assert content(tmp_path / "b") == content(tmp_path / "d")
    assert together[SHALLOW].meta.rows_key == first.meta.rows_key


def test_one_pass_reads_the_model_once_for_all_hook_points(model, tmp_path, monkeypatch):
    asked: list[list[HookPoint]] = []
    capture = type(model).capture

    def counted(self, batch, hook_points):
        asked.append(list(hook_points))
        return capture(self, batch, hook_points)

    monkeypatch.setattr(type(model), "capture", counted)
    harvest_activations(model, mixed(6), {DEEP: tmp_path / "a", SHALLOW: tmp_path / "b"})
    assert asked
    assert all(set(points) == {DEEP, SHALLOW} for points in asked)


def test_other_text_is_not_aligned(model, tmp_path):
    one = harvest_activations(model, mixed(9), {DEEP: tmp_path / "a"}, max_tokens=60)[DEEP]
    other = harvest_activations(model, mixed(10), {SHALLOW: tmp_path / "b"}, max_tokens=60)
    with pytest.raises(MismatchError, match="not of the same tokens"):
        check_aligned(one, other[SHALLOW])


def test_an_older_folder_becomes_alignable_when_its_harvest_is_asked_for_again(model, tmp_path):
    documents = mixed(5)
    store = harvest_activations(model, documents, {DEEP: tmp_path / "a"})[DEEP]
    path = tmp_path / "a" / "meta.json"
    old = json.loads(path.read_text())
    del old["rows_key"]
    path.write_text(json.dumps(old))
    other = harvest_activations(model, documents, {SHALLOW: tmp_path / "b"})[SHALLOW]
    with pytest.raises(MismatchError, match="not of the same tokens"):
        check_aligned(ActivationStore(tmp_path / "a"), other)
    again = harvest_activations(model, documents, {DEEP: tmp_path / "a"})[DEEP]
    check_aligned(again, other)
    assert again.meta == store.meta


def test_a_harvest_under_way_is_not_aligned_with_a_finished_one(model, tmp_path, monkeypatch):
    monkeypatch.setattr(harvest, "BLOCK_DOCUMENTS", 4)
    documents = mixed(9)
    whole = harvest_activations(model, documents, {DEEP: tmp_path / "a"})[DEEP]

    def die(event: HarvestEvent) -> None:
        raise Killed

    with pytest.raises(Killed):
        harvest_activations(model, documents, {SHALLOW: tmp_path / "b"}, progress=die)
    with pytest.raises(MismatchError, match="not finished"):
        check_aligned(whole, ActivationStore(tmp_path / "b"))


def test_other_documents_are_not_mixed_in(model, tmp_path):
    harvest_activations(model, mixed(3), {DEEP: tmp_path})
    with pytest.raises(MismatchError, match="another harvest"):
        harvest_activations(model, mixed(4), {DEEP: tmp_path})


def test_no_documents_are_refused(model, tmp_path):
    with pytest.raises(InvalidInput, match="no documents"):
        harvest_activations(model, [], {DEEP: tmp_path})
