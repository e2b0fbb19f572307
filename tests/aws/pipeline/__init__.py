"""Runs the generated pipeline template on this machine, without CodePipeline."""
