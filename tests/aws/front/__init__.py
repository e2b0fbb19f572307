"""The HTTP front before the emulators. It is a double of what they lack; docs/aws-emulation.md lists it."""
