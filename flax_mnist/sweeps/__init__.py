"""Many trainings from their beginning to their end: what `flax-mnist sweep` does."""
