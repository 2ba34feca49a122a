"""The ``arkinfer`` command; one module per subcommand, imported when it runs."""
