"""Who tells what happens while networks are trained: in lines, in a bar, as JSON."""

import contextlib

from flax_mnist.runs.observers import Ending, Observer, Start
from flax_mnist.runs.stopping import why_over
from flax_mnist.show import terminal, text
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics, metrics_line


class Lines(Observer):
    """Tells a person what is trained, how each epoch went, and where the run is."""

    def begin(self, start: Start) -> None:
        self.start, self.history = start, list(start.history)
        if start.resumed and not start.step:
            terminal.say(f"{start.folder} has no checkpoint yet: starting from the beginning.")
        terminal.say(text.header(start.config, start.dataset, start.device))
        if start.step:
            terminal.say(f"Going on after step {start.step:,} of {start.last_step:,}")

    def compiled(self, seconds: float) -> None:
        terminal.say(f"Compiled in {seconds:.2f} s")

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            self.history.append(metrics)
            terminal.say(text.epoch_line(metrics, self.start.config.epochs))

    def end(self, ending: Ending) -> None:
        if ending == "done":
            if why := why_over(self.start.config, self.history):
                terminal.say(why)
            if kept := self.history[-1].best_epoch:
                loss = next(row.validation_loss for row in self.history if row.epoch == kept)
                terminal.say(f"Kept are the weights of epoch {kept}: validation loss {loss:.4f}")
            terminal.say(f"Saved in {self.start.folder}")


class ProgressBar(Observer):
    """A bar on a terminal, nothing elsewhere."""

    def begin(self, start: Start) -> None:
        self.bar = contextlib.ExitStack()
        bar = terminal.progress_bar(start.last_step, start.step)
        self.set = self.bar.enter_context(bar)

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        self.set(step, metrics)

    def end(self, ending: Ending) -> None:
        self.bar.close()


class JsonLines(Observer):
    """Prints what `metrics.jsonl` gets."""

    def begin(self, start: Start) -> None:
        self.dataset_name = start.dataset.name

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            terminal.say(metrics_line(metrics, self.dataset_name))
