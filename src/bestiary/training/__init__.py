"""The training engine: many LoRA adapters side by side over one frozen base."""
