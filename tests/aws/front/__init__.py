"""The HTTP front before the emulators. It imitates what they do not offer; docs/aws-emulation.md lists it."""
