"""The release model that both homes share: what a release is, who asked for it, how it ended and what it cost."""
