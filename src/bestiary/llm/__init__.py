"""Asking language models: providers, a rate limiter, a ledger with a budget; knows no behavior."""
