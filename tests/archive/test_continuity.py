"""Steps of cloud fraction where a sensor changes: planted and absent ones; against scipy, test by test."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

import xcloudmask
from xcloudmask.errors import CloudMaskError, OptionError

BREAKS = {"first": "2003-02-01", "second": "2014-01-01"}


def test_tests_are_those_of_scipy_on_monthly_means(dates):
    series = dates.record(np.random.default_rng(2), regions=2)
    series[0, 40:60] = np.nan
    found = xcloudmask.continuity(series, BREAKS).tests
    starts = [pd.Timestamp(at) for at in BREAKS.values()]
    for region in range(2):
        frame = series[region].to_series().dropna()
        part = pd.Series([sum(t >= s for s in starts) for t in frame.index], frame.index)
        means = frame.groupby([part, frame.index.year, frame.index.month]).mean()
        for number, name in enumerate(BREAKS):
            for month in (1, 2, 7, 12):
                old, new = (means[p].xs(month, level=1).to_numpy() for p in (number, number + 1))
                one = found.sel({"break": name, "month": month}).isel(area=region)
                u, p = scipy.stats.mannwhitneyu(new, old)
                assert (int(one.before), int(one.after)) == (len(old), len(new))
                assert float(one.p) == pytest.approx(p)
                assert float(one.effect) == pytest.approx(2 * u / len(old) / len(new) - 1)
                assert float(one["shift"]) == pytest.approx(np.median(np.subtract.outer(new, old)))
    for months in (found.sel(month=slice(1, None)), found.sel(month=[0])):
        q = scipy.stats.false_discovery_control(months.p.values.ravel())
        np.testing.assert_allclose(months.q.values.ravel(), q)


def test_a_planted_step_is_seen_where_it_is_and_one_that_is_absent_is_not(dates):
    series = dates.record(np.random.default_rng(5), regions=4)
    late = (series.time >= np.datetime64("2003-02-01")) & (series.area == "region 2")
    found = xcloudmask.continuity((series - 0.2 * late).clip(0, 1), BREAKS)
    years = found.tests.sel(month=0)
    assert years.step.values.tolist() == [[False, True, False, False], [False] * 4]
    assert float(years.effect[0, 1]) == -1
    assert float(years["shift"][0, 1]) == pytest.approx(-0.2, abs=0.05)
    months = found.tests.step.sel(month=slice(1, None))
    assert int(months[0, 1].sum()) >= 6
    assert int(months.sum() - months[0, 1].sum()) <= 1
    assert "region 2" in repr(found).splitlines()[3]
    table = found.table()
    assert len(table) == 2 * 4 * 13
    assert table.iloc[0].q == table.q.min()


def test_false_alarms_come_at_the_nominal_rate(dates):
    """Twenty records; the benchmark has a thousand."""
    found = dates.alarms(20)
    assert 0.02 < found["p_low_months"] < 0.06
    assert 0.01 < found["p_low_year"] < 0.1
    assert found["records_with_a_step"] < 0.2
    seen = dates.power(4, 0.15)
    assert seen["years_seen"] > 0.9
    assert seen["false_steps"] < 0.15


def test_a_series_of_masks_is_taken_as_it_comes(dates):
    series = dates.record(np.random.default_rng(1), regions=3)
    clear = xr.Dataset({"clear_fraction": (1 - series).chunk(area=1), "valid_fraction": series})
    one = xcloudmask.continuity(clear, BREAKS).tests
    two = xcloudmask.continuity(series, BREAKS).tests
    np.testing.assert_allclose(one.p.values, two.p.values)
    lone = xcloudmask.continuity(series[0].drop_vars("area"), list(BREAKS.values())).tests
    assert lone.p.dims == ("break", "month")
    np.testing.assert_allclose(lone.p.values, two.p.isel(area=0).values)
    assert lone["break"].values.tolist() == list(BREAKS.values())
    unsorted = xcloudmask.continuity(series[:, ::-1], BREAKS).tests
    np.testing.assert_allclose(unsorted.p.values, two.p.values)


def test_too_few_years_are_said_to_be_too_few(dates):
    series = dates.record(np.random.default_rng(1), regions=1)
    assert "too few years" not in repr(xcloudmask.continuity(series, BREAKS))
    short = xcloudmask.continuity(series.sel(time=slice(None, "2000-12-31")), ["1999-05-01"])
    assert "13 of them: too few years to tell anything at 0.05" in repr(short)
    empty = xcloudmask.continuity(series, ["2020-06-28"])  # its last date
    assert int(empty.tests.p.notnull().sum()) == 1  # that June
    assert not empty.tests.step.any()
    assert len(empty.table()) == 1
    assert "year" in repr(xcloudmask.continuity(series, BREAKS))
    repr(empty)


def test_a_year_counts_if_half_of_its_months_are_there(dates):
    series = dates.record(np.random.default_rng(1), regions=1)
    years = xcloudmask.continuity(series, ["2003-02-01"]).tests.sel(month=0).squeeze()
    assert (int(years.before), int(years.after)) == (5, 18)  # of 2003 January alone lies before
    years = xcloudmask.continuity(series, ["2003-07-01"]).tests.sel(month=0).squeeze()
    assert (int(years.before), int(years.after)) == (6, 18)


def test_the_plot_shows_parts_and_effects(dates):
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    series = dates.record(np.random.default_rng(5), regions=2)
    figure = xcloudmask.continuity(series, BREAKS).plot()
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0].startswith("Cloud fraction minus the monthly mean")
    assert figure.axes[1].get_xlabel() == "month; dots mark significant steps"
    assert titles[1:3] == ["Effect: first", "Effect: second"]
    assert len(figure.axes[0].lines) == 6
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["region 1", "region 2"]
    xcloudmask.continuity(series[0].drop_vars("area"), ["2003-02-01"]).plot()
    mpl.pyplot.close("all")


def test_what_is_no_record_is_refused(dates):
    series = dates.record(np.random.default_rng(1), regions=1)
    with pytest.raises(OptionError, match="clear_fraction"):
        xcloudmask.continuity(xr.Dataset({"cloud": series}), BREAKS)
    with pytest.raises(CloudMaskError, match="in their order"):
        xcloudmask.continuity(series, ["2014-01-01", "2003-02-01"])
    for percent in (series * 100, xr.Dataset({"clear_fraction": series * 100}), series.chunk() * 100):
        with pytest.raises(CloudMaskError, match=r"up to .* 0 to 1: divide percent by 100"):
            xcloudmask.continuity(percent, BREAKS)
    for other, kind in ((series.values, r"<class 'numpy\.ndarray'>"), (None, "None")):
        with pytest.raises(OptionError, match=f"of continuity {kind}. Give DataArray or Dataset"):
            xcloudmask.continuity(other, BREAKS)
    with pytest.raises(CloudMaskError, match="in their order"):
        xcloudmask.continuity(series, [])
    with pytest.raises(CloudMaskError, match="alpha=5"):
        xcloudmask.continuity(series, BREAKS, alpha=5)
    with pytest.raises(CloudMaskError, match="it needs dates along dim='when'"):
        xcloudmask.continuity(series, BREAKS, dim="when")
    with pytest.raises(CloudMaskError, match="in their order"):
        xcloudmask.continuity(series, ["2003-22-01"])
    with pytest.raises(CloudMaskError, match=r"must lie within the series, \d{4}-\d\d-\d\d to \d{4}"):
        xcloudmask.continuity(series, ["2050-01-01"])
