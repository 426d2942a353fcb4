"""One Zarr group: its arrays, ledger, lock, commits and retries."""
