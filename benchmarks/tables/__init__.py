"""From the samples of a result to a table and a picture."""
