"""The backend-neutral graph: its container, a builder, and the ``ai.arkinfer`` operators."""
