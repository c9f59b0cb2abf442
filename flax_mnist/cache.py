"""Where the program keeps what it can make again."""

from pathlib import Path


def cache_dir() -> Path:
    """The user's cache folder for this program; it may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("flax-mnist"))
