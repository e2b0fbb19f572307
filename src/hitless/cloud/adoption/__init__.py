"""A stack of Serverless Framework itself becomes release 1: `templates`, whether it can be (`checks`), `adoption`."""
