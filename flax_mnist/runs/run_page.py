"""A run folder as one web page: reads it, tests its network, and writes the page."""

from datetime import datetime
from pathlib import Path

from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically
from flax_mnist.runs.trained import StartJax, class_probabilities, load, load_images, score
from flax_mnist.show import page
from flax_mnist.show.results import Findings
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import read_finished
from flax_mnist.store.record import read_config, read_environment
from flax_mnist.store.weights import to_torch_state_dict


def write_page(
    run_dir: Path, output: Path, data_dir: Path | None, start: StartJax, paths: bool = False
) -> None:
    """Writes the page of the run in `run_dir` to the file `output`.

    The run's images are looked for in `data_dir` where they are not where they were. Of a path on
    this machine the page has the last name alone, unless `paths` asks for all of it.

    Raises:
        RequestError: the folder holds no run, the run has no epoch yet, or its network has more
            weights than a page can hold.
        FlaxMnistError: what it holds is damaged, or the network's loss is not finite.
    """
    if not run_dir.is_dir():
        raise RequestError(f"{run_dir}: is no run folder.")
    record = read_config(run_dir)
    metrics = read_finished(run_dir)
    environment = read_environment(run_dir)
    trained = load(run_dir, start)
    state_dict = to_torch_state_dict(trained.params)
    page.require_room(state_dict)  # before anything takes long
    dataset = load_images(None, data_dir, record)
    loss, _ = score(trained, dataset)
    findings = Findings(dataset, loss, class_probabilities(trained, dataset.test.images))
    if not paths:
        environment = page.without_folders(environment)
        dataset = dataset._replace(source=page.without_folders(dataset.source))
        findings = findings._replace(dataset=dataset)
    # As `flax-mnist runs` has it: that file is written when a run begins or goes on.
    began = datetime.fromtimestamp((run_dir / run_folder.CONFIG).stat().st_mtime).astimezone()
    date = f"{began:%Y-%m-%d}"
    history = page.History(run_dir.resolve().name, record.config, environment, metrics, date)
    content = page.render(history, findings, state_dict)
    # A folder's name need not be text.
    write_atomically(output, content.encode("utf-8", "backslashreplace"))
