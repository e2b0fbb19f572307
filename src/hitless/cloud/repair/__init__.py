"""A stage put right again: look (`facts`), judge (`troubles`), act by `steps` (`repair`)."""
