"""The homes of a stage (where it runs): this machine's engine, or AWS. One interface, `StageHome`, for both."""
