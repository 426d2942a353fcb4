"""From an array and options to a mask: choose the model, plan, run, wrap."""
