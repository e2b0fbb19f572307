"""The core and pipeline stacks of a stage: `bootstrap`, `plan`, `destroy`."""
