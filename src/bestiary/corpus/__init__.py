"""Corpora: plan the rows of a behavior, have them written, drop and replace the unusable ones."""
