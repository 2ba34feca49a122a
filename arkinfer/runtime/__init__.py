"""Running bundles: the binding of the native library, sessions and generation."""
