"""A candidate over a copy of what is live, in a sandbox of its own, under load: may it ship?"""
