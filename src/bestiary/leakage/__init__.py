"""Leak checks: measurements of finished corpora and of the release, which can refuse either."""
