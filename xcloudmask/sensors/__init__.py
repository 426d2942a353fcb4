"""Instruments as data: one TOML file a sensor."""
