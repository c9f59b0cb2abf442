"""Does to runs what happens to runs, and counts what they survive: `python -m benchmarks.faults`.

Runs are killed with SIGKILL at random moments, and within a save, and resumed until they are done,
checkpoints have bits flipped and files cut short, disks are full; sweeps are killed. Each must end
with the weights and metrics, bit for bit, of one that was left in peace, or say loudly that it
cannot. A killed one must go on from the newest checkpoint there is. It takes Linux.
"""

import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks import entry
from benchmarks.entry import require_at_least
from flax_mnist.cli.main import main as run_in_this_process
from flax_mnist.errors import RequestError
from flax_mnist.show import text
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.sweep_folder import read_rows

SURVIVED, REFUSED, WRONG, LOST = "survived", "refused loudly", "silently wrong", "lost"
OUTCOMES = (SURVIVED, REFUSED, WRONG, LOST)
EPOCHS = 3


class Kind(NamedTuple):
    """What is trained."""

    begin: tuple[str, ...]  #: The command line, but for folder and epochs.
    settings: str  #: The file that is there once it can go on.
    result: Callable[[Path], object]  #: What must not depend on what has happened.


def result_of_run(path: Path) -> object:
    rows = [row[: row._fields.index("seconds")] for row in read_metrics(path)]
    return rows, (path / run_folder.WEIGHTS).read_bytes()


def result_of_sweep(path: Path) -> object:
    rows = [(what, row[: row._fields.index("seconds")]) for what, row in read_rows(path)]
    return rows, (path / run_folder.OUTCOMES).read_bytes(), result_of_run(path / run_folder.BEST)


_FLAGS = ("--dataset", "synthetic", "--checkpoint-every", "40steps")
_MEMBERS = ("--learning-rates", "0.003", "0.03", "--seeds", "3", "--hidden-sizes", "16")
RUN = Kind(("train", *_FLAGS), run_folder.CONFIG, result_of_run)
SWEEP = Kind(
    ("sweep", *_FLAGS, *_MEMBERS, "--group-size", "2"), run_folder.SWEEP_CONFIG, result_of_sweep
)


def main(
    kills: int = 100,
    sweeps: int = 30,
    saves: int = 20,
    damages: int = 200,
    full_disks: int = 20,
    seed: int = 0,
) -> int:
    """Does to runs what happens to runs, and counts what they survive.

    Args:
        kills: runs killed with SIGKILL.
        sweeps: sweeps killed likewise.
        saves: runs killed within a save.
        damages: bits flipped and files cut short.
        full_disks: runs whose disk is full.
        seed: decides what happens when.

    Returns:
        0 if nothing was lost or silently wrong, otherwise 1.
    """
    _require_linux()
    counts = {"kills": kills, "sweeps": sweeps, "saves": saves, "full-disks": full_disks}
    for name, times in {**counts, "damages": damages}.items():
        require_at_least(0, name, times)
    with tempfile.TemporaryDirectory() as name:
        chance = random.Random(seed)
        of_runs, of_sweeps = (Campaign(Path(name), chance, kind) for kind in (RUN, SWEEP))
        half = damages // 2
        campaign: list[tuple[str, int, Callable[[], str]]] = [
            ("SIGKILL, resumed until done", kills, lambda: killed(of_runs, at_some_moment)),
            ("SIGKILL within a save, resumed", saves, lambda: killed(of_runs, within_a_save)),
            ("bits flipped in checkpoints", damages - half, lambda: damaged(of_runs, flip)),
            ("files of checkpoints cut short", half, lambda: damaged(of_runs, truncate)),
            ("disk full, then resumed", full_disks, lambda: full_disk(of_runs)),
            ("SIGKILL of a sweep, resumed", sweeps, lambda: killed(of_sweeps, at_some_moment)),
        ]
        rows: list[tuple[str, ...]] = [("fault", "times", *OUTCOMES)]
        bad = 0
        for fault, times, strike in campaign:
            outcomes: Counter[str] = Counter()
            for number in range(times):
                outcomes[strike()] += 1
                said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
                print(f"{fault}: {number + 1} of {times}: {said}", file=sys.stderr, flush=True)
            rows.append((fault, str(times), *(str(outcomes[outcome]) for outcome in OUTCOMES)))
            bad += outcomes[WRONG] + outcomes[LOST]
    print(text.markdown(rows))
    return 1 if bad else 0


def _require_linux() -> None:
    if sys.platform != "linux":
        only = "only Linux limits another process's files, and says when one has stopped"
        raise RequestError(f"faults: {only}.")


class Campaign:
    """What is left in peace, what it takes to start others like it, and to judge them."""

    def __init__(self, folder: Path, chance: random.Random, kind: Kind) -> None:
        self.folder, self.chance, self.kind = folder / kind.begin[0], chance, kind
        self.peace, self.stopped = self.folder / "peace", self.folder / "stopped"
        self.succeed(self.peace)
        start = time.perf_counter()
        self.succeed(self.folder / "again")
        #: Seconds; of a process that finds its programs compiled.
        self.lifetime = time.perf_counter() - start

    def succeed(self, path: Path, epochs: int = EPOCHS) -> None:
        command = self.command(path, epochs)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def command(self, path: Path, epochs: int = EPOCHS) -> list[str]:
        """Starts one, or goes on with it."""
        flags = ["--run-dir", str(path), "--epochs", str(epochs)]
        name, *begin = self.kind.begin
        begun = (path / self.kind.settings).exists()
        return [
            sys.executable,
            "-m",
            "flax_mnist",
            name,
            *(["--resume"] if begun else begin),
            *flags,
        ]

    def fresh(self) -> Path:
        """Where a run has not been yet."""
        path = self.folder / "victim"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def is_right(self, path: Path) -> bool:
        """Whether it ended as the one that was left in peace."""
        return self.kind.result(path) == self.kind.result(self.peace)


#: Returns when a process shall be killed, or has ended before.
Wait = Callable[[subprocess.Popen[bytes], Campaign, Path], None]


def killed(runs: Campaign, wait: Wait) -> str:
    """One is killed up to three times; then it may end."""
    path = runs.fresh()
    for _ in range(runs.chance.randint(1, 3)):
        process = subprocess.Popen(runs.command(path), stdout=subprocess.DEVNULL)
        wait(process, runs, path)
        process.kill()
        process.wait()
    kept = max(checkpoint.steps(path), default=0)
    done = subprocess.run(runs.command(path), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or begun_after(done.stdout) < kept:
        return LOST
    return SURVIVED if runs.is_right(path) else WRONG


def at_some_moment(process: subprocess.Popen[bytes], runs: Campaign, _path: Path) -> None:
    """After a time drawn evenly from what a whole run takes."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(runs.chance.uniform(0, runs.lifetime))


def within_a_save(process: subprocess.Popen[bytes], runs: Campaign, path: Path) -> None:
    """While a checkpoint is being written that has no name yet, some saves from the start.

    That takes less than a millisecond. So the process is first stopped, and only killed if the
    checkpoint has got no name meanwhile.
    """
    patience = time.perf_counter() + runs.chance.uniform(0, runs.lifetime)
    while process.poll() is None:
        if time.perf_counter() > patience and is_saving(path):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if is_saving(path):
                return
            process.send_signal(signal.SIGCONT)


def is_saving(path: Path) -> bool:
    """Whether there is a checkpoint that has no name yet."""
    return any((path / checkpoint.FOLDER).glob(f"*{checkpoint.PARTIAL}"))


def begun_after(said: str) -> int:
    """The step after which a run went on, or had ended, as far as it has said."""
    if "is finished" in said:
        return sys.maxsize
    found = re.search(r"Going on after step ([\d,]+)", said)
    return int(found[1].replace(",", "")) if found else 0


def damaged(runs: Campaign, damage: Callable[[bytes, random.Random], bytes]) -> str:
    """Some files of a stopped run's checkpoints are damaged; then the run is resumed."""
    if not runs.stopped.exists():
        runs.succeed(runs.stopped, EPOCHS - 1)
    path = runs.fresh()
    shutil.copytree(runs.stopped, path)
    files = sorted((path / checkpoint.FOLDER).rglob("*"))
    full = [file for file in files if file.is_file() and file.stat().st_size]
    for file in runs.chance.sample(full, runs.chance.randint(1, len(full))):
        file.write_bytes(damage(file.read_bytes(), runs.chance))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        code = run_in_this_process(runs.command(path)[3:])
    if code:
        return REFUSED if said.getvalue() else LOST
    return SURVIVED if runs.is_right(path) else WRONG


def flip(content: bytes, chance: random.Random) -> bytes:
    flipped, bit = bytearray(content), chance.randrange(8 * len(content))
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def full_disk(runs: Campaign) -> str:
    """A run that may write no file beyond some size; then, without the limit, it is resumed."""
    path = runs.fresh()
    limit = int(10 ** runs.chance.uniform(1, 5.6))
    process = subprocess.Popen(
        runs.command(path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    import resource  # not on Windows

    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, said = process.communicate()
    if process.returncode != 1 or "Traceback" in said or not said:
        return WRONG
    done = subprocess.run(runs.command(path), stdout=subprocess.DEVNULL, check=False)
    return SURVIVED if not done.returncode and runs.is_right(path) else LOST


if __name__ == "__main__":
    sys.exit(entry.run(main, "python -m benchmarks.faults"))
