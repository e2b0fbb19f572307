"""The pipeline without CodePipeline: the generated template, read and run on this machine."""
