"""The Lambda functions of `serverless.yml`, one module each: HTTP in, HTTP out, and nothing else."""
