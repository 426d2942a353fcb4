"""The engine: arrays in, arrays out. No xarray, no zarr; dask in `run_dask` alone."""
