"""vLLM: rules on the activations of a worker's flattened batches. Nothing here imports vLLM.

The adapter reads the shapes of vLLM's v1 engine (`SchedulerOutput`, the runner's input batch, the
decoder layers' outputs) and is tested against a fake of them; see docs/vllm.md for what has not
been run on the real engine.
"""

from auditkit.integrations.vllm.extension import AuditkitWorker
from auditkit.integrations.vllm.layout import PromptLayout
from auditkit.integrations.vllm.ledger import Ledger
from auditkit.integrations.vllm.request import RequestVerdicts
from auditkit.integrations.vllm.runner import RunnerMonitor
from auditkit.integrations.vllm.spans import Span, read_spans

__all__ = [
    "AuditkitWorker",
    "Ledger",
    "PromptLayout",
    "RequestVerdicts",
    "RunnerMonitor",
    "Span",
    "read_spans",
]
