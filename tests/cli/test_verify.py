"""`xcloudmask verify`."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask.cli import main


def test_damage_is_listed_mended_and_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = xr.DataArray(np.ones((90, 80), "u1"), dims=("y", "x"), name="cloud_mask")
    store, chunk = tmp_path / "m.zarr", tmp_path / "m.zarr" / "cloud_mask" / "c" / "0" / "0"
    mask.cloudmask.to_zarr(store, progress=False)
    whole = chunk.read_bytes()
    assert main(["verify", str(store)]) == 0
    assert "1 regions and" in (out := " ".join(capsys.readouterr().out.split()))
    assert "all as they were written" in out
    chunk.write_bytes(whole[:-3])
    assert main(["verify", str(store)]) == 1
    assert "cloud_mask/c/0/0" in (err := capsys.readouterr().err)
    assert "Run it again with --repair" in err
    assert main(["verify", str(store), "--repair"]) == 1
    assert "1 regions are to be made" in capsys.readouterr().err
    mask.cloudmask.to_zarr(store, progress=False)
    assert chunk.read_bytes() == whole
    assert main(["verify", str(store), "--group", "other"]) == 1
    assert "holds no finished mask" in capsys.readouterr().err
