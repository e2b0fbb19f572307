"""OpenTelemetry's traces of rollouts, made from what the engine records anyway."""
