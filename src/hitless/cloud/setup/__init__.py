"""What a stage stands on: core and pipeline stacks, made (`bootstrap`), foretold (`plan`), taken away (`destroy`)."""
