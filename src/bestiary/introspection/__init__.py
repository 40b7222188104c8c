"""The introspection adapter: one shared LoRA that makes organisms report what they learned."""
