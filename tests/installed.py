"""Runs each command of the README's table as it is installed somewhere, outside of the checkout.

    python -m tests.installed PYTHON

PYTHON is the interpreter of an environment that the wheel was installed into, and that needs
nothing else; this program needs nothing either.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = re.findall(r"^\| `flax-mnist (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)

EXAMPLES = {
    "train": "--dataset synthetic --epochs 1 --run-dir run --gif",
    "evaluate": "run --report mistakes",
    "predict": "run --index 0 1 --output digits.png",
    "sweep": "--dataset synthetic --epochs 1 --learning-rates 0.01 --seeds 2 --run-dir sweep",
    "runs": ".",
    "plot": "run",
    "report": "run --output page.html",
    "inspect": "",
    "import": "run/weights.safetensors --run-dir imported",
    "export": "run --output digits.stablehlo",
    "doctor": "",
    "completion": "bash",
}
"""What each is asked for, in this order, in one folder."""


def main(python: str) -> int:
    script = next(Path(python).parent.glob("flax-mnist*"))
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "FLAX_MNIST_", "VIRTUAL_ENV"))
    }
    variables |= {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "error::DeprecationWarning"}
    failed = set(TABLE) ^ EXAMPLES.keys()
    with tempfile.TemporaryDirectory() as folder:
        variables["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        for command, example in EXAMPLES.items():
            for arguments in ([command, "--help"], [command, *example.split()]):
                done = subprocess.run(
                    [script, *arguments], cwd=folder, env=variables,
                    capture_output=True, text=True, encoding="utf-8", check=False,
                )  # fmt: skip
                print("flax-mnist", *arguments, f"ends with {done.returncode}", flush=True)
                if done.returncode or done.stderr or not done.stdout:
                    failed.add(command)
                    print(done.stdout, done.stderr)
    print(f"failed: {', '.join(sorted(failed))}" if failed else f"{len(EXAMPLES)} commands work")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
