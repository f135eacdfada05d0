"""The views that `auditkit query` offers beside the tables: what a reader mostly wants, joined.

docs/query.md says what each column is; a test holds that page and these statements together.
"""

from __future__ import annotations

VIEWS: dict[str, str] = {
    "suites": """
        SELECT r.recording, r.suite, r.state, r.model ->> '$.name' AS model,
               r.sae ->> '$.name' AS sae, r.sae ->> '$.hook_point' AS hook_point,
               (r.sae ->> '$.d_sae')::INTEGER AS d_sae,
               (SELECT count(*) FROM prompts p WHERE p.recording = r.recording) AS prompts,
               (SELECT count(*) FROM tokens t WHERE t.recording = r.recording) AS tokens
        FROM recordings r
    """,
    "prompt_texts": """
        SELECT r.suite, p.recording, p.prompt, p.ordinal, p.label,
               json_extract_string(p.tags, '$[*]') AS tags, p.split,
               json_array_length(p.messages)::INTEGER AS messages,
               json_extract_string(p.messages, '$[0].content') AS first_message,
               json_extract_string(p.messages, '$[#-1].content') AS last_message
        FROM prompts p JOIN recordings r USING (recording)
    """,
    "token_activations": """
        SELECT r.suite, p.label, t.prompt, t.position, t.text, t.role, t.mask,
               a.latent, a.value, a.recording, a.token
        FROM activations a
        JOIN tokens t USING (recording, token)
        JOIN prompts p ON p.recording = t.recording AND p.prompt = t.prompt
        JOIN recordings r ON r.recording = t.recording
    """,
    "latents": """
        SELECT s.latent, s.fires, s.tokens, s.density, s.mean, s.sd, s.max, s.q99, s.q9999,
               s.reference, s.sae
        FROM latent_stats s
    """,
    "rule_matches": """
        SELECT r.suite, p.label, m.rule, m.prompt, m.frame, m.truth, m.reason, m.filtered_by,
               m.score, t.text AS fired_on, t.position AS fired_at, m.recording, m.lock
        FROM matches m
        JOIN recordings r USING (recording)
        JOIN prompts p ON p.recording = m.recording AND p.prompt = m.prompt
        LEFT JOIN tokens t ON t.recording = m.recording AND t.token = m.token
    """,
    "rule_findings": """
        SELECT f.fp, r.suite, f.rule, f.state, f.recording, f.lock
        FROM findings f JOIN recordings r USING (recording)
    """,
    "causal_tests": """
        SELECT c.rule, c.verdict, c.confirmation, c.lock,
               (SELECT count(*) FROM trials t WHERE t.confirmation = c.confirmation) AS trials
        FROM confirmations c
    """,
}
