"""How many workers a function needs: decided by a pure function, which a simulator runs on virtual time too."""
