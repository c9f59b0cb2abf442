"""What runs compile, and what a compiler makes of it."""
