"""The caller's own networks: registered, packed, and sent to workers."""
