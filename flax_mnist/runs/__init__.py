"""A training from its beginning to its end."""
