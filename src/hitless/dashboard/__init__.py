"""The web page that shows an engine and controls it, in a process of its own beside the daemon."""
