"""Hostile files and items, end to end: refused, and nothing runs, leaves or is read outside."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from tests.models.helpers import an_item, as_onnx, as_safetensors, mlp, sha, wide, write_item
from tests.models.weights.test_safety import Canary, an_onnx
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import registry

HOW = {
    "bands": ["red", "nir"],
    "classes": ["clear", "cloud", "cloud_shadow"],
    "activation": "softmax",
    "architecture": "pixel-mlp",
    "config": {"bands": 2, "classes": 3, "hidden": 4},
}


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    before = set(registry.registered)
    yield
    assert set(registry.registered) == before, "a hostile file became a model"


def tree(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def hostile(kind, canary):
    """Return the file's suffix, its bytes, and words of the refusal."""
    out = io.BytesIO()
    if kind == "pickle":
        pickle.dump(Canary(canary), out)
        return "safetensors", out.getvalue(), "name it FILE.pt"
    if kind == "torch pickle":
        torch.save(Canary(canary), out)
        return "onnx", out.getvalue(), "name it FILE.pt"
    if kind == "pickle as pt2":
        torch.save(Canary(canary), out)
        return "pt2", out.getvalue(), "could run code|did not arrive whole"
    if kind == "header":
        return "safetensors", struct.pack("<Q", 10**11) + b"{" + bytes(64), "100,000,000,000"
    if kind == "bomb":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("m/models/model.json", bytes(100 * 2**20))
        return "pt2", out.getvalue(), "zip bomb"
    if kind == "escape":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("../../escaped", b"x")
        return "pt2", out.getvalue(), "escaped"
    if kind == "external":
        return "onnx", an_onnx(True, "initializer"), "external data"
    return "onnx", as_onnx(wide())[:-40], "did not arrive whole"


KINDS = [
    "pickle",
    "torch pickle",
    "pickle as pt2",
    "header",
    "bomb",
    "escape",
    "external",
    "truncated",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["file", "web", "item"])
def test_hostile_weights(kind, way, canary, tmp_path, web, cache):
    suffix, data, words = hostile(kind, canary)
    how = HOW if suffix == "safetensors" else {k: HOW[k] for k in ("bands", "classes", "activation")}
    folder = tmp_path / "models"
    folder.mkdir()
    path = folder / f"net.{suffix}"
    path.write_bytes(data)
    before = tree(tmp_path)
    if way == "file":
        where, more = path, {}
    elif way == "web":
        web.files[f"/net.{suffix}"] = data
        where, more = f"{web.url}/net.{suffix}", {"sha256": sha(data)}
    else:
        item = an_item(data, name=path.name, mlm__architecture="pixel-mlp")
        where, more = write_item(folder, item), {}
        before = tree(tmp_path)
    with pytest.raises(WeightsError, match=words):
        models.load(where, **how, **more)
    after = tree(tmp_path)
    assert {path for path in after.keys() - before.keys() if cache not in path.parents} == set()
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(
    "href",
    [
        "../outside.onnx",
        "a/../../outside.onnx",
        "%2e%2e/outside.onnx",
        "%252e%252e/outside.onnx",
        "..\\outside.onnx",
        "/etc/outside.onnx",
        "file:///etc/outside.onnx",
        "link/outside.onnx",
        "data:application/octet-stream;base64,AAAA",
        "ftp://example.com/net.onnx",
        "",
        ".",
        "a\n.onnx",
    ],
)
@pytest.mark.parametrize("way", ["file", "web"])
def test_assets_stay_where_their_item_is(href, way, tmp_path, web):
    data = as_onnx(wide())
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.onnx").write_bytes(data)
    os.symlink(tmp_path, folder / "link")
    item = an_item(data, asset_href=href)
    if way == "file":
        where = write_item(folder, item)
    else:
        web.files["/models/item.json"] = json.dumps(item).encode()
        web.files["/outside.onnx"] = data
        where = f"{web.url}/models/item.json"
    with pytest.raises(CloudMaskError, match=r"refused|form of weights|HTTP 404|cannot be read"):
        models.load(where)
    assert {path for path, _ in web.asked} <= {"/models/item.json", "/models/link/outside.onnx"}


def test_a_redirect_out_of_the_web_is_refused(tmp_path, web):
    data = as_safetensors(mlp(), tmp_path).read_bytes()
    web.faults.append(("redirect", f"file://{tmp_path}/net.safetensors"))
    with pytest.raises(WeightsError, match=r"redirects to 'file:|is not allowed"):
        models.load(f"{web.url}/net.safetensors", sha256=sha(data), **HOW)
    web.faults.append(("redirect", f"file://{tmp_path}/item.json"))
    with pytest.raises(WeightsError, match=r"redirects to 'file:|is not allowed"):
        models.load(f"{web.url}/item.json")


def test_a_wrong_hash_is_refused_before_parsing(tmp_path, web, monkeypatch):
    from xcloudmask.models import loading

    data = as_onnx(wide())
    (tmp_path / "net.onnx").write_bytes(data + b"\0")
    monkeypatch.setattr(loading, "vetted", lambda *args: pytest.fail("it was parsed"))
    with pytest.raises(WeightsError, match="expected"):
        models.load(write_item(tmp_path, an_item(data)))
    with pytest.raises(WeightsError, match="expected"):
        models.load(tmp_path / "net.onnx", sha256=sha(data), **HOW)


def test_source_code_is_never_fetched(web):
    data = as_onnx(wide())
    item = an_item(data)
    item["assets"] = {
        "source_code": {
            "href": "./load.py",
            "roles": ["mlm:source_code", "code"],
            "mlm:entrypoint": "load:run",
        },
        **item["assets"],
    }
    web.files["/item.json"] = json.dumps(item).encode()
    web.files["/load.py"] = b"raise SystemExit"
    web.files["/net.onnx"] = data
    models.load(f"{web.url}/item.json", name="x")
    assert {path for path, _ in web.asked} == {"/item.json", "/net.onnx"}
    del registry.registered["x"]


def test_an_endless_item_is_cut_off(web, tmp_path):
    from xcloudmask.models.weights import fetch

    web.files["/item.json"] = b" " * (fetch.MAX_TEXT + 10)
    with pytest.raises(WeightsError, match="larger than 16 MiB"):
        models.load(f"{web.url}/item.json")
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)
    with pytest.raises(WeightsError, match="no JSON"):
        models.load(deep)


def test_a_hostile_architecture_name_imports_nothing(tmp_path):
    from safetensors.torch import save

    for name in ("os", "xcloudmask.testing", "../arch"):
        note = {"architecture": name, "config": {"members": [{"name": "os"}]}}
        data = save(mlp().state_dict(), {"network": json.dumps(note)})
        (tmp_path / "net.safetensors").write_bytes(data)
        how = {"bands": ["red", "nir"], "classes": ["clear", "cloud"]}
        with pytest.raises(OptionError, match="unknown architecture"):
            models.load(tmp_path / "net.safetensors", **how)


PUBLISHED = Path(__file__).parents[4] / "shared" / "published" / "hostile"


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the hostile files, which are not in the repository")
def test_a_tensor_larger_than_its_file_is_refused_as_it_is_loaded():
    how = {"bands": ["blue", "green", "red", "nir"], "classes": ["clear", "cloud"], "activation": "sigmoid"}
    with pytest.raises(WeightsError, match=r"its tensor 'mix\.weight' claims sizes that cannot be"):
        models.load(PUBLISHED / "new_weight_size_lie.pt2", **how)
