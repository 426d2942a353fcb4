"""What a stream says of itself when it is done: in a console, in a notebook."""

from xcloudmask.streaming import Failure, StreamReport


def test_a_small_mask_was_written_at_some_speed() -> None:
    report = StreamReport("a.zarr", "cloud_mask", 1, 1, 0, (), 0.0041, 2.0)
    assert str(report).endswith("1 of 1 regions done (1 now, 0 before), 0.004 Mpx in 0:02, 0.002 Mpx/s")
    assert repr(report) == str(report)


def test_nothing_that_was_written_has_no_speed() -> None:
    report = StreamReport("a.zarr", "cloud_mask", 1, 0, 1, (), 0.0, 0.1)
    assert str(report) == "a.zarr: cloud_mask, 1 of 1 regions done (0 now, 1 before)"


def test_a_notebook_folds_the_failures_and_escapes_them() -> None:
    failed = tuple(Failure((0, n, 0), "<b>", "it broke") for n in range(12))
    page = StreamReport("a.zarr", "cloud_mask", 12, 0, 0, failed, 0.0, 0.1)._repr_html_()
    assert page.startswith("<div>a.zarr: cloud_mask, 0 of 12 regions done")
    assert page.count("&lt;b&gt;: it broke<br>") == 10
    assert "and 2 more<br>Run the same call again" in page
    assert "<details>" in page
    assert "<details>" not in StreamReport("a", "b", 1, 1, 0, (), 1.0, 1.0)._repr_html_()
