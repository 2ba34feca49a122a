"""The rope (rotary position embedding) operator."""
