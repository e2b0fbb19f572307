"""The HTTP front before the emulators. It imitates features that they do not have; docs/aws-emulation.md lists them."""
