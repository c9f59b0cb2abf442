"""The subcommands: each a dataclass of its flags, and a few lines that call the rest.

jax and all that needs it are imported where they are used, so that help and refusals are quick.
"""
