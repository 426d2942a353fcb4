"""Exported programs and items that would run code, write elsewhere or fill the memory are refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from tests.models.published import golden
from xcloudmask import models
from xcloudmask.errors import CloudMaskError
from xcloudmask.models import registry

pytestmark = golden.needed
FOLDER = golden.PUBLISHED / "hostile"
PROGRAM = {
    "bands": ["blue", "red", "nir", "swir16"], "classes": ["clear", "cloud"], "activation": "complement",
    "units": "reflectance*10000",
}  # fmt: skip
#: Every file, and words of its refusal; None where the hostile part is never opened, so that it may load.
REFUSALS = {
    "item_href_file_scheme.json": "leads out of the item's folder",
    "item_href_outside.json": "leads out of the item's folder",
    "item_preprocessing_python.json": "pre_processing_function names code",
    "new_bomb.pt2": "zip bomb",
    "new_inputs_pickle.pt2": None,
    "new_traversal.pt2": r"escaped\.txt.*refused",
    "new_weight_flag_pickle.pt2": "'mix.weight' is kept as a pickle or an object: refused",
    "new_weight_path_outside.pt2": r"'mix.weight' lies in '\.\./.*outside the archive: refused",
    "new_weight_size_lie.pt2": "'mix.weight' claims .* and its file weight_0 holds 432: refused",
    "old_bomb.pt2": "zip bomb",
    "old_constants_raw_pickle.pt2": r"serialized_constants\.pt is no dictionary of tensors",
    "old_constants_torch_pickle.pt2": r"serialized_constants\.pt: its pickle names __builtin__\.exec.*refus",
    "old_inputs_torch_pickle.pt2": None,
    "old_schema_9.pt2": "schema 9",
    "old_state_torch_pickle.pt2": r"serialized_state_dict\.pt: its pickle names __builtin__\.exec.*refused",
    "old_target_custom_op.pt2": r"calls 'torch\.ops\.unknown_library\.do\.default'.*refused",
    "old_target_os_system.pt2": r"calls 'os\.system'.*refused",
    "old_traversal.pt2": r"escaped\.txt.*refused",
    "old_twice.pt2": r"serialized_state_dict\.pt' twice: refused",
    "truncated.pt2": "refused|did not arrive whole",
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def no_trace(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    places = (tmp_path, tmp_path / "a", tmp_path / "a" / "b", FOLDER, FOLDER.parent, FOLDER.parents[1])
    before = [names(place) for place in places]
    yield
    assert [names(place) for place in places] == before


def test_every_file_of_the_folder_is_known():
    ours = {name for name in names(FOLDER) if name.endswith((".pt2", ".json"))}
    assert ours == REFUSALS.keys()
    assert {path.suffix for path in FOLDER.iterdir()} == {".pt2", ".json", ".pkl", ".hdf5"}


@pytest.mark.parametrize("name", [name for name, words in REFUSALS.items() if words])
def test_it_is_refused_by_name(name):
    how = PROGRAM if name.endswith(".pt2") else {}
    before = set(registry.registered)
    with pytest.raises(CloudMaskError, match=REFUSALS[name]) as caught:
        models.load(FOLDER / name, **how)
    assert name in str(caught.value)
    assert set(registry.registered) == before


@pytest.mark.parametrize("name", [name for name, words in REFUSALS.items() if words is None])
def test_example_inputs_are_never_opened(name):
    spec = models.load(FOLDER / name, **PROGRAM)
    stored = np.round(10000 * golden.image("toy", (2, 4, 512, 512)))[0]
    da = xr.DataArray(stored, dims=("band", "y", "x"), coords={"band": PROGRAM["bands"]})
    odds = da.cloudmask.describe(scale=1e-4, offset=0).cloudmask.predict_proba(spec).values[1]
    assert np.abs(odds[::8, ::8] - golden.answers("fdr4vgt")["model_a"][0]).max() < 1e-6


SCRIPT = """
import json, resource, sys
from pathlib import Path
from xcloudmask import models
from xcloudmask.errors import CloudMaskError
folder, program, names = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
before, modules, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, set(sys.modules), 0
for name in names:
    try:
        models.load(Path(folder, name), **(program if name.endswith(".pt2") else {}))
    except CloudMaskError:
        refused += 1
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"refused": refused, "MiB": peak / 1024, "torch": "torch" in sys.modules,
                  "imported": sorted(set(sys.modules) - modules)}))
"""


def test_refusing_takes_little_memory_and_imports_nothing_of_theirs():
    refused = [name for name, words in REFUSALS.items() if words]
    args = [str(FOLDER), json.dumps(PROGRAM), json.dumps(refused)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["refused"] == len(refused)
    assert told["MiB"] < 100
    assert not told["torch"]  # what is refused is refused before anything is built of it
    imported = {name.partition(".")[0] for name in told["imported"]}
    assert imported <= {"xcloudmask", *sys.stdlib_module_names}
