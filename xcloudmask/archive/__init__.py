"""A store over time: kept up to date with a catalogue, and read as a time series."""
