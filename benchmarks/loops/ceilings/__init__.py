"""What the hardware would allow: a step's products and nothing else, a large product, a copy.

A file for each library that could be the fastest: they time the same work, and the best one counts.
"""
