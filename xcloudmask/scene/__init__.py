"""What an xarray object holds: dimensions, bands, units, aux inputs, and how it is described."""
