"""Files of the user's own that name others: a GeoTIFF by its name, a text that points elsewhere inside."""

import dataclasses
from pathlib import Path

import pytest

from tests.cli.test_cli import raster
from xcloudmask import models
from xcloudmask.cli import main
from xcloudmask.testing import TOY
from xcloudmask.types import AuxInput

#: What lies in the file that must not be read; as classes they would be counted.
CANARY = bytes([1] * 100 + [0] * 156)


@pytest.fixture
def vrt(tmp_path: Path) -> Path:
    """A mask, or heights, whose pixels would be the bytes of another file."""
    (tmp_path / "canary").write_bytes(CANARY)
    path = tmp_path / "vrt.tif"
    path.write_text(
        '<VRTDataset rasterXSize="16" rasterYSize="16"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>600000, 30, 0, 4900020, 0, -30</GeoTransform><Metadata>"
        '<MDI key="flag_values">0 1 255</MDI><MDI key="flag_meanings">clear cloud no_data</MDI></Metadata>'
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename>'
        f"{tmp_path}/canary</SourceFilename><LineOffset>16</LineOffset></VRTRasterBand></VRTDataset>"
    )
    return path


def commands(vrt: Path, good: Path) -> dict[str, list[str]]:
    out = str(vrt.parent / "out.tif")
    return {
        "info": ["info", str(vrt)],
        "predict": ["predict", str(vrt), out, "--bands", "red"],
        "aux": ["predict", str(good), out, "--model", "toy-dem", "--level", "L1C", "--scale", "1e-4", "--aux",
                f"elevation={vrt}"],
        "mask": ["score", str(vrt), str(vrt)],
    }  # fmt: skip


@pytest.mark.parametrize("command", ["info", "predict", "aux", "mask"])
def test_a_vrt_that_is_called_tif_is_refused(
    command: str, vrt: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models.register(
        dataclasses.replace(TOY, name="toy-dem", aux=(AuxInput("elevation", required=True),)), overwrite=True
    )
    monkeypatch.setenv("GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE", "ALL")  # as GDAL was before 3.12
    code = main(commands(vrt, raster(vrt.parent / "good.tif"))[command])
    said = "".join(capsys.readouterr())
    assert code != 0
    assert "vrt.tif" in said
    assert "not recognized as being in" in said.replace("\n", " ")
    assert "%" not in said, "the bytes of the other file were counted"
    assert not (vrt.parent / "out.tif").exists()
