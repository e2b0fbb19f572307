"""The homes of a stage: this machine's engine, or AWS. One interface, `StageHome`, for both."""
