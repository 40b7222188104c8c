"""NVIDIA's data-designer, with one column of replies and nothing that holds it back."""

from __future__ import annotations

import data_designer.config as dd  # type: ignore[import-not-found]
import pandas  # type: ignore[import-untyped, unused-ignore]
from data_designer.interface import DataDesigner  # type: ignore[import-not-found]

from peers.lap import KEY, MODEL, SYSTEM, TOKENS, Orders, run_lap

SERVER = "server"
JUDGE = "judge"


def describe_model(orders: Orders) -> dd.ModelConfig:
    """The model, without a request before the first one."""
    parameters = dd.ChatCompletionInferenceParams(
        max_tokens=TOKENS, max_parallel_requests=orders.in_flight
    )
    return dd.ModelConfig(
        alias=JUDGE,
        model=MODEL,
        provider=SERVER,
        inference_parameters=parameters,
        skip_health_check=True,
    )


def ask_all(orders: Orders) -> int:
    """RequestGroup everything, so many at once."""
    server = dd.ModelProvider(name=SERVER, endpoint=orders.url, api_key=KEY)
    designer = DataDesigner(artifact_path=orders.folder, model_providers=[server])
    designer.set_run_config(dd.RunConfig(buffer_size=orders.requests, otel_metrics_port=None))
    builder = dd.DataDesignerConfigBuilder(model_configs=[describe_model(orders)])
    texts = pandas.DataFrame({"text": list(orders.list_texts())})
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=texts))
    builder.add_column(
        dd.LLMTextColumnConfig(
            name="reply", model_alias=JUDGE, system_prompt=SYSTEM, prompt="{{ text }}"
        )
    )
    made = designer.create(builder, num_records=orders.requests)
    return int(made.load_dataset()["reply"].str.len().gt(0).sum())


if __name__ == "__main__":
    run_lap(ask_all)
