"""The embed (token embedding lookup) operator."""
