"""Who writes corpora, judges and filters them; `llm` asks the models and knows no behavior."""
