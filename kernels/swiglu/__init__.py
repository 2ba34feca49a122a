"""The swiglu (gated activation) operator."""
