"""Base models, chat templates, adapters and decoding; shared by the stages.

Only modules that compute import torch at their head, so that commands still start at once.
"""
