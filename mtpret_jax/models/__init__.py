"""The networks: a ResNet trunk and the heads on it. Modules only; what runs is plain dicts of arrays."""
