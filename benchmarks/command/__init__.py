"""The command line of the benchmark: its flags, what it does, and what it keeps."""
