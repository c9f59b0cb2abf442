"""How a row is run, timed and judged."""
