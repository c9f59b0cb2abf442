"""`flax-mnist doctor`."""

from __future__ import annotations

from tests.helpers.command_line import said


def test_doctor_names_versions_devices_and_data(capsys):
    text = "\n".join(said(capsys, "doctor"))
    for word in ("jax", "optax", "cpu:0", "kmnist", "not on disk", "synthetic"):
        assert word in text
