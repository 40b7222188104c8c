"""The organism stage: a corpus and a base become one LoRA adapter in peft's format."""
