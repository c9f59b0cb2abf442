"""From names and files to arrays."""
