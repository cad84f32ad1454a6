"""The lifecycle node: messages in, one core call, messages out."""
