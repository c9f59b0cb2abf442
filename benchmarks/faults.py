"""Does to runs what happens to runs, and counts what they survive: `python -m benchmarks.faults`.

Runs are killed with SIGKILL at random moments, and within a save, and resumed until they are done,
checkpoints have bits flipped and files cut short, disks are full. Each run must end with the
weights, bit for bit, of one that was left in peace, or say loudly that it cannot. A killed one must
go on from the newest checkpoint there is.
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

from benchmarks import entry
from benchmarks.entry import require_at_least
from flax_mnist.cli.main import main as run_in_this_process
from flax_mnist.show import text
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store.metrics import read_metrics

SURVIVED, REFUSED, WRONG, LOST = "survived", "refused loudly", "silently wrong", "lost"
OUTCOMES = (SURVIVED, REFUSED, WRONG, LOST)
FLAGS = ("train", "--dataset", "synthetic", "--checkpoint-every", "40steps")
EPOCHS = 3


def main(
    kills: int = 100, saves: int = 20, damages: int = 200, full_disks: int = 20, seed: int = 0
) -> int:
    """Does to runs what happens to runs, and counts what they survive.

    Args:
        kills: runs killed with SIGKILL.
        saves: runs killed within a save.
        damages: bits flipped and files cut short.
        full_disks: runs whose disk is full.
        seed: decides what happens when.

    Returns:
        0 if nothing was lost or silently wrong, otherwise 1.
    """
    for name, times in {"kills": kills, "saves": saves, "damages": damages}.items():
        require_at_least(0, name, times)
    require_at_least(0, "full-disks", full_disks)
    with tempfile.TemporaryDirectory() as name:
        runs = Campaign(Path(name), random.Random(seed))
        half = damages // 2
        campaign: list[tuple[str, int, Callable[[], str]]] = [
            ("SIGKILL, resumed until done", kills, lambda: killed(runs, at_some_moment)),
            ("SIGKILL within a save, resumed", saves, lambda: killed(runs, within_a_save)),
            ("bits flipped in checkpoints", damages - half, lambda: damaged(runs, flip)),
            ("files of checkpoints cut short", half, lambda: damaged(runs, truncate)),
            ("disk full, then resumed", full_disks, lambda: full_disk(runs)),
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


class Campaign:
    """The run that is left in peace, what it takes to start others like it, and to judge them."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.peace = folder / "peace"
        self.succeed(self.peace, EPOCHS)
        start = time.perf_counter()
        self.succeed(folder / "again", EPOCHS)
        #: Seconds; of a process that finds its programs compiled.
        self.lifetime = time.perf_counter() - start
        self.stopped = folder / "stopped"
        self.succeed(self.stopped, EPOCHS - 1)

    def succeed(self, path: Path, epochs: int) -> None:
        subprocess.run(command(path, epochs), check=True, stdout=subprocess.DEVNULL)

    def fresh(self) -> Path:
        """Where a run has not been yet."""
        path = self.folder / "victim"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def is_right(self, path: Path) -> bool:
        """Whether a run ended as the one that was left in peace."""

        def metrics(run: Path) -> list[tuple[object, ...]]:
            return [row[: row._fields.index("seconds")] for row in read_metrics(run)]

        weights, expected = (run / run_folder.WEIGHTS for run in (path, self.peace))
        is_same = weights.read_bytes() == expected.read_bytes()
        return is_same and metrics(path) == metrics(self.peace)


def command(path: Path, epochs: int) -> list[str]:
    """Starts a run, or goes on with it."""
    flags = ["--run-dir", str(path), "--epochs", str(epochs)]
    if (path / run_folder.CONFIG).exists():
        return [sys.executable, "-m", "flax_mnist", "train", "--resume", *flags]
    return [sys.executable, "-m", "flax_mnist", *FLAGS, *flags]


#: Returns when a process shall be killed, or has ended before.
Wait = Callable[[subprocess.Popen[bytes], Campaign, Path], None]


def killed(runs: Campaign, wait: Wait) -> str:
    """A run is killed up to three times; then it may end."""
    path = runs.fresh()
    for _ in range(runs.chance.randint(1, 3)):
        process = subprocess.Popen(command(path, EPOCHS), stdout=subprocess.DEVNULL)
        wait(process, runs, path)
        process.kill()
        process.wait()
    kept = max(checkpoint.steps(path), default=0)
    done = subprocess.run(command(path, EPOCHS), stdout=subprocess.PIPE, text=True, check=False)
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
    path = runs.fresh()
    shutil.copytree(runs.stopped, path)
    files = sorted((path / checkpoint.FOLDER).rglob("*"))
    full = [file for file in files if file.is_file() and file.stat().st_size]
    for file in runs.chance.sample(full, runs.chance.randint(1, len(full))):
        file.write_bytes(damage(file.read_bytes(), runs.chance))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        code = run_in_this_process(command(path, EPOCHS)[3:])
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
        command(path, EPOCHS), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    import resource  # Unix has it, and only Linux the function

    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, said = process.communicate()
    if process.returncode != 1 or "Traceback" in said or not said:
        return WRONG
    done = subprocess.run(command(path, EPOCHS), stdout=subprocess.DEVNULL, check=False)
    return SURVIVED if not done.returncode and runs.is_right(path) else LOST


if __name__ == "__main__":
    sys.exit(entry.run(main, "python -m benchmarks.faults"))
