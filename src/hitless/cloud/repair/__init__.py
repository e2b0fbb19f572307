"""Repairs a stage: look (`facts`), decide (`troubles`), fix (`repair`)."""
