"""The published dataset: its columns, pairs and manifest, and how they are read and checked."""
