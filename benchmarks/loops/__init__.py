"""The loops that are compared, a framework a file. Each file imports its framework at its top."""
