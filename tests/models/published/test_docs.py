"""Every block of docs/published.md runs, on files in the published containers under the names it uses."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from tests.local.conftest import numbers, raster
from tests.local.test_safe import safe
from tests.models.published import golden
from xcloudmask.models import registry
from xcloudmask.models.convert import convert

pytestmark = [golden.needed, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
pytest.importorskip("h5py", reason="Keras files need h5py: pip install 'xcloudmask[local]'")

PAGE = Path(__file__).parents[3] / "docs" / "published.md"
COMING = PAGE.with_name("coming-from.md")
__all__ = ["numbers", "raster", "safe"]
S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]


def scene(bands, **described):
    values = golden.image("docs", (len(bands), 64, 64)) * 0.4 + 0.05
    coords = {"band": bands, "y": np.arange(64) * -10.0, "x": np.arange(64) * 10.0}
    array = xr.DataArray(values, dims=("band", "y", "x"), coords=coords, attrs={"crs": "EPSG:32632"})
    return array.cloudmask.describe(**described)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files of the page in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    sensei = tmp_path / "SEnSeIv2-SegFormerB2-alldata-ambiguous"
    for folder in ("single", "ensemble", "10m", "OmniCloudMask", sensei.name):
        (tmp_path / folder).mkdir()
    torch.save(golden.weights(golden.facts("senseiv2_segformer")["shapes"]), sensei / "weights.pt")
    shutil.copy(golden.PUBLISHED / "senseiv2_yaml" / "config-segformer.yaml", sensei / "config.yaml")
    vgt = golden.PUBLISHED / "fdr4vgt"
    for item, name in (
        ("single", "multisensor_single_1dpwdeeplabv3"),
        ("ensemble", "ensemble_global_2_flex"),
    ):
        shutil.copy(vgt / f"{item}_old.json", tmp_path / item / f"{name}.json")
        for program in vgt.glob("model_?_old.pt2"):
            shutil.copy(program, tmp_path / item)
    for version in ("v3.44_regnety_006_4C_Dice_1_10m", "v3.45_regnety_006_4C_Dice_2_10m"):
        shutil.copy(
            golden.PUBLISHED / "clouds2mask" / "sample_whole_module.pkl", tmp_path / "10m" / f"{version}.pkl"
        )
    for encoder, fact in golden.facts("omnicloudmask")["networks"].items():
        save_file(golden.weights(fact["shapes"]), tmp_path / "OmniCloudMask" / f"{encoder}.safetensors")
    keras = golden.PUBLISHED / "ipl_uv"
    shutil.copy(keras / "landsatbiomeRGBI6.hdf5", tmp_path)
    convert([keras / "full.hdf5", keras / "cloud_detection_l8.hdf5"], tmp_path / "adapted.safetensors")


def test_every_block_runs(files):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 6
    names = {
        "scene": scene(S2, sensor="sentinel-2", level="L1C", offset=0, scale=1),
        "vgt": scene(["blue", "red", "nir", "swir16"], scale=1, offset=0),
    }
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["mask"].shape == (64, 64)
    assert float(names["odds"].isel({names["odds"].dims[0]: -1}).max()) > 0  # how far three networks disagree
    assert (names["spec"].family, len(names["both"].members), len(names["pair"].members)) == (
        "sensei-v2",
        2,
        2,
    )
    assert names["proba_v"].bands == ("blue", "red", "nir", "swir16")


def test_the_blocks_of_coming_from_that_need_files_run(files, safe, tmp_path):
    import xcloudmask

    product = safe()[0]
    (tmp_path / "masks").mkdir()
    names = {"xcloudmask": xcloudmask, "folders": [product]}
    names["scene"] = scene(S2, sensor="sentinel-2", level="L1C", offset=0, scale=1)
    blocks = re.findall(r"```python files\n(.*?)```", COMING.read_text(encoding="utf-8"), flags=re.S)
    for block in blocks:
        exec(compile(block, str(COMING), "exec"), names)
    assert {names[name].family for name in ("pair", "spec", "both")} == {
        "omnicloudmask",
        "sensei-v2",
        "clouds2mask",
    }
    assert (tmp_path / "masks" / f"{product.stem}.tif").stat().st_size > 0
