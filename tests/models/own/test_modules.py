"""A module or a function of the user's own is a model, here and on a cluster."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from torch import nn

from tests.models.helpers import BANDS, CLASSES, CONFIG, as_safetensors, mlp
from tests.scenes import noise, scene
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models import own, registry
from xcloudmask.models.own.modules import send_registered, spec_of
from xcloudmask.models.sources import ukis
from xcloudmask.models.weights import fetch
from xcloudmask.testing import TOY

HOW = {"bands": BANDS, "classes": CLASSES, "patch": 32, "overlap": 8}


def expected(module, pixels):
    with torch.inference_mode():
        return torch.softmax(module(torch.from_numpy(pixels[None])), dim=1)[0].numpy()


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    """Models that other tests, and examples in docstrings, registered are not there."""
    monkeypatch.setattr(registry, "registered", {spec.name: spec for spec in ukis.SPECS})


def proba(model, pixels):
    return (
        scene(pixels, BANDS)
        .cloudmask.predict_proba(model, scheme="native", working_resolution="native")
        .values
    )


def test_a_module_by_name_and_by_itself():
    net, pixels = mlp().train().requires_grad_(True), noise(2, 50, 40)
    spec = models.register(net, name="mine", **HOW)
    assert (spec.bands, spec.patch, spec.sha256 in spec.weights) == (tuple(BANDS), 32, True)
    for model in ("mine", net, spec):
        np.testing.assert_allclose(proba(model, pixels), expected(mlp(), pixels), atol=1e-5)
    assert net.training, "the caller's module is left as it was"
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert spec_of(net) == spec


def test_a_module_that_learns_on_is_another_model():
    net, pixels = mlp(), noise(2, 32, 32)
    first = models.register(net, name="mine", **HOW)
    before = proba(net, pixels)
    with torch.no_grad():
        net[-1].bias += torch.tensor([0.0, 3.0, 0.0])
    assert np.abs(proba(net, pixels) - before).max() > 0.1
    assert models.get("mine").sha256 != first.sha256
    np.testing.assert_array_equal(proba(first, pixels), before)


def test_a_function():
    def bright(pixels):
        return torch.cat([0 * pixels[:, :1], pixels[:, :1] * 10 - 5, 0 * pixels[:, :1]], dim=1)

    pixels = noise(2, 32, 32)
    models.register(bright, **HOW)
    np.testing.assert_allclose(proba(bright, pixels), expected(bright, pixels), atol=1e-5)
    np.testing.assert_allclose(proba("bright", pixels), expected(bright, pixels), atol=1e-5)


def test_a_module_that_carries_its_card():
    net, pixels = mlp(), noise(2, 32, 32)
    net.cloudmask_spec = models.ModelSpec(
        "carried", "1", tuple(BANDS), tuple(CLASSES), "a:b", patch=32, overlap=8
    )
    np.testing.assert_allclose(proba(net, pixels), expected(mlp(), pixels), atol=1e-5)


def test_a_set_network_of_ones_own():
    from xcloudmask.models.arch import build

    net = build("spectral", {"classes": 3, "width": 8, "heads": 2, "rounds": 1, "hidden": 8})
    spec = models.register(net, name="any", classes=CLASSES, patch=32)
    assert spec.any_bands
    with pytest.raises(CloudMaskError, match="leave bands= out"):
        models.register(net, name="any", classes=CLASSES, bands=BANDS)


def test_what_is_missing_is_said():
    net = mlp()
    line = r"xcloudmask\.models\.register\(my_model, name='sequential', bands="
    with pytest.raises(CloudMaskError, match=line):
        proba(net, noise(2, 32, 32))
    with pytest.raises(CloudMaskError, match="pass what goes in and out"):
        models.register(net, classes=CLASSES)
    with pytest.raises(CloudMaskError, match="a ModelSpec holds all of its card: leave bands out"):
        models.register(TOY, bands=BANDS)
    with pytest.raises(TypeError, match="got int"):
        models.register(3)
    for wrong in (3, None):
        with pytest.raises(TypeError, match=rf"^model={wrong}: pass a name, a ModelSpec, or a module"):
            proba(wrong, noise(2, 32, 32))
    models.register(net, name="mine", **HOW)
    with pytest.raises(ValueError, match="exists already"):
        models.register(mlp(1), name="mine", **HOW)


def test_the_graph_carries_a_hash_and_no_weights():
    import pickle

    net = nn.Sequential(nn.Conv2d(2, 500, 1), nn.Conv2d(500, 3, 1))
    models.register(net, name="big", **HOW)
    lazy = scene(noise(2, 64, 64), BANDS).chunk(y=32, x=32)
    mask, again = lazy.cloudmask.predict(net), lazy.cloudmask.predict(net)
    assert mask.data.name == again.data.name
    layer = mask.data.dask.layers[mask.data.name]
    assert len(pickle.dumps(layer)) < 5000


def test_the_hash_is_of_the_content():
    from xcloudmask.models.own.pickling import dumps, loads

    assert dumps(mlp()) == dumps(mlp())
    assert dumps(mlp()) != dumps(mlp(1))
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    again = loads(dumps(tied))
    assert again[1].weight is again[0].weight
    assert torch.equal(again[0].weight, tied[0].weight)
    assert again[0].weight is not tied[0].weight


def arrivals():
    from xcloudmask.models.own import send_weights

    return list(send_weights.arrived)


def test_weights_travel_once_to_each_worker(tmp_path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):

        class Local(nn.Module):  # known to no worker: its code travels with it
            def __init__(self):
                super().__init__()
                self.net = mlp()

            def forward(self, x):
                return self.net(x)

        net, pixels = Local(), noise(2, 70, 60)
        da = scene(pixels, BANDS)
        models.register(net, name="mine", **HOW)
        for _ in range(2):
            lazy = da.chunk(y=30, x=30).cloudmask.predict_proba(
                net, scheme="native", working_resolution="native"
            )
            found = client.compute(lazy).result().values
            np.testing.assert_allclose(found, expected(mlp(), pixels), atol=1e-5)
        spec = models.get("mine")
        assert list(client.run(arrivals).values()) == [[spec.sha256]] * 2
        own.send("mine")
        assert list(client.run(arrivals).values()) == [[spec.sha256]] * 2
        cluster.scale(3)
        client.wait_for_workers(3)
        assert list(client.run(arrivals).values()) == [[spec.sha256]] * 3

        path = as_safetensors(mlp(2), tmp_path)
        spec = models.load(
            path, architecture="pixel-mlp", config=CONFIG, bands=BANDS, classes=CLASSES, patch=32
        )
        data = path.read_bytes()
        path.unlink()
        how = {"scheme": "native", "working_resolution": "native"}
        with pytest.raises(WeightsError, match=r"models\.own\.send"):
            client.compute(da.chunk(y=20, x=30).cloudmask.predict_proba("net", **how)).result()
        path.write_bytes(data)
        own.send("net")
        path.unlink()
        found = client.compute(da.chunk(y=30, x=30).cloudmask.predict_proba("net", **how)).result().values
        np.testing.assert_allclose(found, expected(mlp(2), pixels), atol=1e-5)


def test_without_a_cluster_nothing_is_sent():
    send_registered(models.register(mlp(), name="mine", **HOW))
    with pytest.raises(WeightsError, match="registered in another process"):
        fetch.read("held:" + "0" * 64, "0" * 64)


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        ("nope:x", "cannot be imported: ModuleNotFoundError"),
        ("xcloudmask:missing", "cannot be imported: AttributeError"),
        ("xcloudmask:", "does not have the form"),
        ("os:sep", "is str, not a function"),
        ("os:getcwd", "fails with TypeError"),
        ("builtins:repr", "returns str, not an xcloudmask.models.network.Network"),
    ],
)
def test_a_loader_that_does_not_load_is_named(loader, says):
    spec = replace(TOY, name="broken", loader=loader)
    remedy = r"ModelSpec\(loader='package.module:function'\)"
    with pytest.raises(CloudMaskError, match=rf"'broken'.*{loader}.*{says}.*{remedy}"):
        scene(noise(2, 40, 40), BANDS).cloudmask.predict(spec, device="cpu")
