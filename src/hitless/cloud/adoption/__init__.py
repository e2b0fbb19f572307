"""Takes over a stack of Serverless Framework as release 1: `checks`, `templates`, `adoption`."""
