"""`xcloudmask bench` runs, adds up, and fits a terminal; how fast it is, no test can say."""

from __future__ import annotations

import re

import pytest

from xcloudmask import cli, models, testing
from xcloudmask.cli import bench
from xcloudmask.engine.devices import for_device
from xcloudmask.engine.predictor import unload
from xcloudmask.models import registry


@pytest.fixture
def shown(monkeypatch, capsys):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    monkeypatch.setenv("COLUMNS", "80")
    models.register(testing.TOY, overwrite=True)

    def run(*words):
        assert cli.main(["bench", "toy", "--device", "cpu", *words]) == 0
        return capsys.readouterr().out

    return run


def test_speed_bound_and_the_line_to_share(shown):
    text = shown("--size", "200", "--runs", "2")
    assert max(map(len, text.splitlines())) <= 80
    plain = " ".join(text.split())
    assert "toy 1, torch, float32" in plain
    assert "2 bands, 200 x 200; windows of 32, overlap 8" in plain
    speed, seconds = map(
        float, re.search(r"speed ([\d.e+-]+) Mpx/s: ([\d.e+-]+) s, median of 2", plain).groups()
    )
    assert speed == pytest.approx(0.04 / seconds, rel=0.02)
    assert "100 Mpx, extrapolated from 0.04 Mpx" in plain
    shared = re.search(r"\| float32 \| ([\d.e+-]+) s \|", plain).group(1)
    assert float(shared) == pytest.approx(100 / speed, rel=0.02)
    shares = [int(share) for share in re.findall(r"(\d+) %", plain)]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=2)
    assert all(shares), "81 windows of a toy: nothing takes less than half a per cent"


def test_precision_is_what_the_network_computes_in(shown):
    assert "| bfloat16 |" in shown("--size", "40", "--runs", "1", "--dtype", "bfloat16")


def test_the_members_of_an_ensemble_tell_its_precision(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    spec = for_device(models.get("ukis-any-l1c"), "cuda:0", "auto")
    assert bench._dtype(spec, "cuda:0", "auto") == "float16"
    unload()


def test_no_size_is_refused(monkeypatch, capsys):
    assert cli.main(["bench", "--size", "0"]) == 2
    assert "1 at least" in capsys.readouterr().err


def test_less_than_a_window_is_refused(shown, capsys):
    assert cli.main(["bench", "toy", "--size", "10"]) == 2
    assert "--size 10: a window of toy has 32" in capsys.readouterr().err
