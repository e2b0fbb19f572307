"""What the engine checks of requests with libraries that no worker may load: the code of a function of its own."""
