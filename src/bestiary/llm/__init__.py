"""A transport for language models: requests, structured replies, a rate limiter and a ledger.

It can be used by itself:

    client = LLMClient(LLMConfig(models={"m": model}, ledger=Path("ledger.sqlite"), mode="single"))
    request = PromptedModel("m", model).ask("Be brief.", Message(...), max_tokens=64)
    (outcome,) = client.ask([request], tag=UsageTag("my-project", "greeting"))

Provider SDKs are imported when a client first reaches a model.
"""

from bestiary.llm.client import LLMClient, LLMConfig, Mode
from bestiary.llm.ledger import Ledger, UsageTag
from bestiary.llm.models import LanguageModel
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered, Usage
from bestiary.llm.structured import Form, ask_form, read_form
from bestiary.llm.workflow import (
    Job,
    JobResult,
    LocalRunner,
    RequestGroup,
    Workflow,
    join,
    run_without_models,
)

__all__ = [
    "Answer",
    "Form",
    "Job",
    "JobResult",
    "LLMClient",
    "LLMConfig",
    "LanguageModel",
    "Ledger",
    "LocalRunner",
    "Mode",
    "ModelRequest",
    "Outcome",
    "PromptedModel",
    "RequestGroup",
    "Unanswered",
    "Usage",
    "UsageTag",
    "Workflow",
    "ask_form",
    "join",
    "read_form",
    "run_without_models",
]
