"""OpenTelemetry's traces of rollouts and requests, made from what the engine records anyway."""
