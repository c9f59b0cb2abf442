"""Other ways to train than the tutorial's, each for an epoch, over which its schedule is spread."""

from flax_mnist.config import Config

RECIPES = {
    "Adam": Config(epochs=1, optimizer="adam", learning_rate=0.001),
    "AdamW": Config(epochs=1, optimizer="adamw", learning_rate=0.001),
    "a cosine schedule": Config(epochs=1, schedule="cosine", learning_rate=0.03),
    "a linear schedule": Config(epochs=1, schedule="linear", momentum=0.9),
    "a warm-up": Config(epochs=1, warmup=0.5, learning_rate=0.03),
    "all of AdamW, cosine, warm-up": Config(
        epochs=1,
        optimizer="adamw",
        learning_rate=0.001,
        weight_decay=0.1,
        schedule="cosine",
        warmup=0.5,
    ),
}
