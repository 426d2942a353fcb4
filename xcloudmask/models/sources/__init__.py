"""Where models come from: this package, ukis-csmask, plug-ins and adapters."""
